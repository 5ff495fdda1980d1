from __future__ import annotations

from pathlib import PurePosixPath

import pytest

from vissl_jointssl.preparation.sources.path_names import patient_of, stem_of


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("a.nii.gz", "a"),
        ("a.NII", "a"),
        ("1.2.3.png", "1.2.3"),
        ("IM0001", "IM0001"),
        (".png", ".png"),
        ("a.v2", "a.v2"),
    ],
)
def test_stems_lose_the_suffixes_of_scans_only(name, stem):
    assert stem_of(name) == stem


@pytest.mark.parametrize(
    ("path", "patient"),
    [
        ("jane/old/ct.nii", "jane"),
        ("imagesTr/la_003.nii.gz", "la_003"),
        ("Task02_Heart/imagesTr/la_003.nii.gz", "la_003"),
        ("Task02_Heart/imagesTr/jane/x.nii.gz", "jane"),
        ("train/CT/jane/x.dcm", "jane"),
        ("test/images/x.png", "x"),
        ("x.png", "x"),
        ("sub-01/anat/sub-01_T1w.nii.gz", "sub-01"),
        ("sub-01_T1w.nii.gz", "sub-01"),
        ("valid/la_017_frame_62.png", "la_017"),
        ("scan3-slice012.png", "scan3"),
    ],
)
def test_the_patient_is_the_topmost_folder_that_does_more_than_sort(path, patient):
    assert patient_of(PurePosixPath(path)) == patient
