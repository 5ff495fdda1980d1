from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from vissl_jointssl.preparation.datasets.demo_volumes import LABEL_NAMES, demo_volumes
from vissl_jointssl.preparation.pipeline import prepare

# TotalSegmentator's numbers: a liver, a vertebra and a spleen in its CT and in its MR table.
CT_NUMBERS, MR_NUMBERS = (5, 30, 1), (5, 19, 1)


@pytest.fixture
def fake_demo(tmp_path, save_nifti, save_dicom) -> Path:
    """The demo's folder in small: bodies of three organs side by side, each as wide as a region."""
    rng = np.random.default_rng(0)

    def scan(width: int, bright: int) -> np.ndarray:
        return (bright + rng.integers(-40, 40, (width, 50, 20))).astype(np.int16)

    def organs(width: int, numbers: tuple[int, int, int]) -> np.ndarray:
        return np.repeat(np.array(numbers, np.uint8), width // 3)[:, None, None] * np.ones((1, 50, 20), np.uint8)

    raw, affine = tmp_path / "raw", np.diag([3.0, 3, 3, 1])
    save_nifti(raw / "abdomen_ct.nii.gz", scan(150, 40), affine)
    save_nifti(raw / "abdomen_ct_labels.nii.gz", organs(150, CT_NUMBERS), affine)
    save_nifti(raw / "liver_mr.nii.gz", scan(150, 400), affine)
    save_nifti(raw / "liver_mr_labels.nii.gz", organs(150, MR_NUMBERS), affine)
    save_nifti(raw / "aorta_ct.nii.gz", scan(60, 40), affine)
    save_nifti(raw / "brain_mr.nii.gz", scan(60, 400), affine)
    planes = scan(150, 40).transpose(2, 1, 0)
    save_dicom(raw / "liver_ct_dicom", planes, spacing=(3.0, 3.0, 3.0))
    series = np.diag([-3.0, -3, 3, 1])  # DICOM counts to the left and to the back
    save_nifti(raw / "liver_ct_labels.nii.gz", organs(150, CT_NUMBERS), series)
    return raw


def test_the_demo_has_every_class_in_training_and_in_test_by_other_patients(fake_demo, tmp_path):
    manifest = prepare(demo_volumes(fake_demo), tmp_path / "out")
    manifest.check_files()
    classes = Counter((entry.split, entry.label) for entry in manifest.entries if entry.label is not None)
    assert set(classes) == {(split, label) for split in ("train", "test") for label in range(len(LABEL_NAMES))}
    train = {entry.patient for entry in manifest.select(splits=("train",))}
    assert len(train) == 3
    assert not train & {entry.patient for entry in manifest.select(splits=("test",))}
    assert {entry.shape for entry in manifest.entries} == {(16, 48, 48)}


def test_both_label_tables_mean_the_same_classes(fake_demo, tmp_path):
    manifest = prepare(demo_volumes(fake_demo), tmp_path / "out")
    for entry in manifest.entries:
        if entry.label is not None:
            counts = np.bincount(manifest.open_label(entry).ravel(), minlength=4)
            assert counts[1:].argmax() == entry.label
    assert {entry.modality for entry in manifest.entries if entry.label == 2} == {"CT", "MR"}
