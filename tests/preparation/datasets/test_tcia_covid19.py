from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vissl_jointssl.preparation.datasets import data_set_recipe
from vissl_jointssl.preparation.datasets.tcia_covid19 import tcia_covid19
from vissl_jointssl.preparation.errors import PreparationError
from vissl_jointssl.preparation.pipeline import prepare

# The three ways in which the archive calls a scan.
NAMES = ("0000", "0001", "0318", "0318_1", "0700_day000", "0700_day007", "0700_day049")


def fake_paths(root: Path) -> list[Path]:
    return [root / f"CT-Covid-19-August2020/volume-covid19-A-{name}.nii.gz" for name in NAMES]


def test_scans_of_one_number_are_of_one_patient(tmp_path, touch, caplog):
    for path in fake_paths(tmp_path):
        touch(path)
        touch(path.with_name(f"._{path.name}"))
    recipe = data_set_recipe("tcia_covid19", tmp_path)
    recipe.check()
    assert "7 of the 771 sources" in caplog.text
    assert [source.id for source in recipe.sources] == [f"covid19-A-{name}" for name in NAMES]
    assert [tmp_path / source.path for source in recipe.sources] == fake_paths(tmp_path)
    patients = {}
    for source, name in zip(recipe.sources, NAMES, strict=True):
        patients.setdefault(name[:4], set()).add(source.patient)
    assert {len(found) for found in patients.values()} == {1}
    assert len(set.union(*patients.values())) == 4


def test_the_folder_itself_and_unpacked_files_are_understood(tmp_path, touch):
    touch(tmp_path / "volume-covid19-A-0003.nii")
    assert [source.path for source in tcia_covid19(tmp_path).sources] == ["volume-covid19-A-0003.nii"]


@pytest.mark.parametrize("name", ["volume-covid19-A-0003_seg.nii.gz", "volume-covid19-A-0003_ct.nii.gz"])
def test_the_challenge_that_took_a_part_of_it_is_not_mistaken_for_it(tmp_path, touch, name):
    touch(tmp_path / name)
    with pytest.raises(PreparationError, match=rf"{name}: the name is none that the data set has"):
        tcia_covid19(tmp_path)


def test_a_scan_that_is_there_twice_is_named(tmp_path, touch):
    touch(tmp_path / "a/volume-covid19-A-0003.nii.gz")
    touch(tmp_path / "b/volume-covid19-A-0003.nii.gz")
    with pytest.raises(PreparationError, match=r"b/volume-covid19-A-0003.nii.gz: the same case as .*a/volume"):
        tcia_covid19(tmp_path)


def test_a_wrong_folder_is_refused_with_what_was_looked_for_and_found(tmp_path, touch):
    touch(tmp_path / "COVID-19-AR/1-1.dcm")
    with pytest.raises(PreparationError, match=r"volume-covid19-A-\*.*Found there: COVID-19-AR/"):
        data_set_recipe("tcia_covid19", tmp_path)


def test_a_tiny_copy_is_prepared(tmp_path, write_nifti):
    arrays = [write_nifti(path) for path in fake_paths(tmp_path / "raw")]
    manifest = prepare(tcia_covid19(tmp_path / "raw"), tmp_path / "out")
    assert {(entry.split, entry.modality, entry.label_path) for entry in manifest.entries} == {("train", "CT", None)}
    assert [entry.id for entry in manifest.entries] == [f"covid19-A-{name}" for name in NAMES]
    for entry, array in zip(manifest.entries, arrays, strict=True):
        slices = array.transpose(2, 1, 0)[:, ::-1, ::-1]  # foot to head, front to back, right to left
        shown = manifest.open(entry).astype(float) / 65535 * 2000 - 1000
        assert np.abs(shown - slices).max() < 0.1
