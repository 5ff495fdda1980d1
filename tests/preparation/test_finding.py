from __future__ import annotations

import numpy as np
from PIL import Image

from vissl_jointssl.preparation.finding import find_sources
from vissl_jointssl.preparation.splitting import hash_patient


def test_scans_series_and_images_are_found_and_the_rest_is_passed_over(tmp_path, save_dicom):
    for name in ("jane/ct.nii.gz", "jane/old/mr.NII", "x.mha", ".hidden.nii", ".trash/y.nii", "notes.txt", "out/z.nii"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    save_dicom(tmp_path / "john" / "series", np.arange(27).reshape(3, 3, 3))
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "x.png")
    found = find_sources(tmp_path, "CT", skip=tmp_path / "out")
    assert [(source.path, source.kind, source.modality) for source in found] == [
        ("jane/ct.nii.gz", "volume", "CT"),
        ("jane/old/mr.NII", "volume", "CT"),
        ("john/series", "volume", "CT"),
        ("x.mha", "volume", "CT"),
        ("x.png", "image", None),
    ]
    patients = [source.patient for source in found]
    assert patients == [hash_patient(name) for name in ("jane", "jane", "john", "x", "x")]
    assert len({source.id for source in found}) == 5


def test_ids_do_not_tell_names_and_do_not_change_when_scans_are_added(tmp_path):
    (tmp_path / "jane_doe.nii.gz").touch()
    (first,) = find_sources(tmp_path)
    assert "jane" not in first.id + first.patient
    (tmp_path / "a.nii.gz").touch()
    assert first in find_sources(tmp_path)


def test_a_folder_that_is_itself_a_series_is_one_scan(tmp_path, save_dicom):
    (source,) = find_sources(save_dicom(tmp_path / "series", np.arange(27).reshape(3, 3, 3)))
    assert source.path == "."
