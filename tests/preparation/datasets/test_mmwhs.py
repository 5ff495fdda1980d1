from __future__ import annotations

import logging
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from vissl_jointssl.preparation.datasets import data_set_recipe
from vissl_jointssl.preparation.errors import PreparationError
from vissl_jointssl.preparation.pipeline import prepare

FILE_NUMBERS = (500, 600, 420, 550, 205, 820, 850)


@pytest.fixture
def fake_mmwhs(tmp_path, touch) -> Path:
    """The 20 training and 40 test scans of both modalities as empty files."""
    root = tmp_path / "MM-WHS 2017 Dataset"
    for modality in ("ct", "mr"):
        for number in range(1001, 1021):
            for kind in ("image", "label"):
                touch(root / f"{modality}_train" / f"{modality}_train_{number}_{kind}.nii.gz")
        for number in range(2001, 2041):
            touch(root / f"{modality}_test" / f"{modality}_test_{number}_image.nii.gz")
    return root


@pytest.mark.parametrize(("word", "modality"), [("mmwhs_ct", "CT"), ("mmwhs_mr", "MR")])
def test_cases_are_split_as_in_the_paper(fake_mmwhs, word, modality):
    recipe = data_set_recipe(word, fake_mmwhs)
    recipe.check()
    cases = defaultdict(set)
    for source in recipe.sources:
        prefix = modality.lower()
        number = source.path.removeprefix(f"{prefix}_train/{prefix}_train_").removesuffix("_image.nii.gz")
        assert source.label_path == source.path.replace("_image", "_label")
        assert source.modality == modality
        cases[source.split].add(int(number))
    assert cases == {
        "train": {1001, 1003, 1005, 1006, 1008, 1009, 1011, 1014, 1015, 1016, 1017, 1018, 1020},
        "val": {1004, 1007, 1013},
        "test": {1002, 1010, 1012, 1019},
    }
    assert recipe.label_names == (
        "left ventricle's blood cavity",
        "right ventricle's blood cavity",
        "left atrium's blood cavity",
        "right atrium's blood cavity",
        "left ventricle's myocardium",
        "ascending aorta",
        "pulmonary artery",
    )


def test_a_case_of_ct_is_not_the_patient_of_that_number_in_mr(fake_mmwhs):
    ct, mr = (data_set_recipe(word, fake_mmwhs).sources for word in ("mmwhs_ct", "mmwhs_mr"))
    assert len({source.patient for source in (*ct, *mr)}) == 40
    assert len({source.id for source in (*ct, *mr)}) == 40


def test_test_scans_are_left_out_and_said(fake_mmwhs, caplog):
    with caplog.at_level(logging.WARNING):
        data_set_recipe("mmwhs_mr", fake_mmwhs)
    assert "mmwhs_mr: the 40 test scans are left out" in caplog.text


@pytest.mark.parametrize("below", ["..", "ct_train"])
def test_the_folder_may_be_the_one_above_or_that_of_the_scans(fake_mmwhs, below):
    assert len(data_set_recipe("mmwhs_ct", fake_mmwhs / below).sources) == 20


def test_another_folder_is_told_what_was_looked_for_and_what_is_there(fake_mmwhs):
    with pytest.raises(
        PreparationError, match=r"(?s)mr_train_\*_image\.nii\*.*Found there: ct_train_1001_image.*zmiclab"
    ):
        data_set_recipe("mmwhs_mr", fake_mmwhs / "ct_train")


def test_scans_without_labels_copies_and_unknown_cases_are_named(fake_mmwhs, touch):
    folder = fake_mmwhs / "ct_train"
    (folder / "ct_train_1002_label.nii.gz").unlink()
    with pytest.raises(PreparationError, match=r"ct_train_1002_image\.nii\.gz: no label belongs to it"):
        data_set_recipe("mmwhs_ct", fake_mmwhs)
    for kind in ("image", "label"):
        (folder / f"ct_train_1001_{kind}.nii.gz").rename(folder / f"ct_train_1021_{kind}.nii.gz")
    touch(folder / "ct_train_1002_label.nii.gz")
    with pytest.raises(PreparationError, match=r"ct_train_1021_image\.nii\.gz: no case of the data set"):
        data_set_recipe("mmwhs_ct", fake_mmwhs)
    touch(fake_mmwhs / "copy" / "ct_train_1003_image.nii")
    with pytest.raises(PreparationError, match=r"ct_train_1003_image\.nii\.gz: the same case as .*copy/ct_train_1003"):
        data_set_recipe("mmwhs_ct", fake_mmwhs)


def test_structures_arrive_as_1_to_7_and_the_slip_421_as_the_left_atrium(tmp_path, write_nifti):
    raw = tmp_path / "raw"
    numbers = (*FILE_NUMBERS, 421, 0, 77)
    spacing = np.diag([1.1, 1.1, 2, 1])  # the scan has 1 mm; such pairs are in MM-WHS (nnU-Net, issue 2333)
    for number in (1001, 1004):
        write_nifti(raw / "mr_train" / f"mr_train_{number}_image.nii.gz", (11, 5, 4))
        write_nifti(raw / "mr_train" / f"mr_train_{number}_label.nii.gz", (11, 5, 4), numbers, spacing)
    manifest = prepare(data_set_recipe("mmwhs_mr", raw), tmp_path / "out")
    manifest.check_files()
    assert [entry.split for entry in manifest.entries] == ["train", "val"]
    for entry in manifest.entries:
        labels = manifest.open_label(entry)
        assert labels.shape == entry.shape == (4, 5, 11)
        expected = np.array([1, 2, 3, 4, 5, 6, 7, 3, 0, 0, 0])[::-1]  # i runs to the right, columns to the left
        np.testing.assert_array_equal(labels, np.broadcast_to(expected, labels.shape))
