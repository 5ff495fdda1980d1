from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from vissl_jointssl.preparation.datasets import data_set_recipe
from vissl_jointssl.preparation.datasets.brats2018 import SEQUENCES
from vissl_jointssl.preparation.errors import PreparationError
from vissl_jointssl.preparation.pipeline import prepare
from vissl_jointssl.preparation.splitting import split_of

TRAINING, VALIDATION = "MICCAI_BraTS_2018_Data_Training", "MICCAI_BraTS_2018_Data_Validation"


@pytest.fixture
def fake_brats(tmp_path, touch):
    """The 210 HGG and 75 LGG patients and the 66 of validation as empty files."""

    def make(numbers: tuple[int, int, int] = (210, 75, 66)) -> Path:
        root = tmp_path / "BraTS2018"
        for grade, count in zip((f"{TRAINING}/HGG", f"{TRAINING}/LGG", VALIDATION), numbers, strict=True):
            for number in range(count):
                patient = f"Brats18_{'CBICA' if grade == VALIDATION else grade[-3:]}_{number}_1"
                for kind in SEQUENCES if grade == VALIDATION else (*SEQUENCES, "seg"):
                    touch(root / grade / patient / f"{patient}_{kind}.nii.gz")
        touch(root / TRAINING / "survival_data.csv")
        return root

    return make


def test_a_full_copy_counts_as_the_home_says(fake_brats, caplog):
    root = fake_brats()
    for word, count in (("brats2018", 1404), ("brats2018_channels", 351), ("brats2018_flair", 351)):
        recipe = data_set_recipe(word, root)
        recipe.check()
        assert len(recipe.sources) == count
        assert len({source.patient for source in recipe.sources}) == 351
        assert {source.modality for source in recipe.sources} == {"MR"}
    assert not caplog.records


def splits(recipe) -> dict[str, str]:
    shares = (recipe.validation_share, recipe.test_share)
    return {source.patient: source.split or split_of(source.patient, *shares, recipe.seed) for source in recipe.sources}


def test_who_tests_is_the_same_in_every_word_so_that_nobody_who_tests_was_trained_on(fake_brats):
    root = fake_brats()
    alone, channels, flair = (
        splits(data_set_recipe(word, root)) for word in ("brats2018", "brats2018_channels", "brats2018_flair")
    )
    assert channels == flair
    assert {patient for patient, split in alone.items() if split == "test"} == {
        patient for patient, split in flair.items() if split == "test"
    }
    assert set(alone.values()) == {"train", "test"}
    counts = Counter(flair.values())  # of 285 with labels 133, 57 and 95 on average, and 66 without labels test
    for split, expected in (("train", 133), ("val", 57), ("test", 95 + 66)):
        assert abs(counts[split] - expected) < 25


def test_channels_are_in_one_order_and_flair_is_the_last(fake_brats):
    root = fake_brats((1, 0, 0))
    folder = f"{TRAINING}/HGG/Brats18_HGG_0_1/Brats18_HGG_0_1"
    (source,) = data_set_recipe("brats2018_channels", root).sources
    assert SEQUENCES == ("t1", "t1ce", "t2", "flair")
    assert (source.path, *source.channel_paths) == tuple(f"{folder}_{kind}.nii.gz" for kind in SEQUENCES)
    assert (source.label_path, source.label_groups) == (f"{folder}_seg.nii.gz", {1: 1, 2: 2, 4: 3})
    (flair,) = data_set_recipe("brats2018_flair", root).sources
    assert (flair.path, flair.channel_paths) == (f"{folder}_flair.nii.gz", ())
    assert (flair.label_path, flair.label_groups) == (f"{folder}_seg.nii.gz", {1: 1, 2: 1, 4: 1})
    alone = data_set_recipe("brats2018", root).sources
    assert [source.path for source in alone] == [f"{folder}_{kind}.nii.gz" for kind in SEQUENCES]
    assert [source.id.split("-")[1] for source in alone] == list(SEQUENCES)
    assert {source.label_path for source in alone} == {None}


@pytest.mark.parametrize("below", ["", TRAINING, f"{TRAINING}/HGG"])
def test_the_folder_may_be_the_one_above_the_training_set_or_of_a_grade(fake_brats, below):
    assert len(data_set_recipe("brats2018_flair", fake_brats((2, 0, 0)) / below).sources) == 2


def test_the_training_set_needs_labels_and_the_validation_set_has_none(fake_brats, monkeypatch):
    root = fake_brats((2, 0, 1))
    (without,) = (source for source in data_set_recipe("brats2018_flair", root).sources if source.label_path is None)
    assert (without.split, without.label_groups) == ("test", None)
    for kind in ("seg", "t2"):
        (root / TRAINING / "HGG" / "Brats18_HGG_1_1" / f"Brats18_HGG_1_1_{kind}.nii.gz").unlink()
    fault = r"(?s)Brats18_HGG_1_1_seg\.nii\.gz: is missing.*Brats18_HGG_1_1_t2\.nii\.gz: is missing"
    with pytest.raises(PreparationError, match=fault):
        data_set_recipe("brats2018", root)
    monkeypatch.chdir(root / TRAINING / "HGG")  # `jointssl prepare brats2018 .`
    with pytest.raises(PreparationError, match=fault):
        data_set_recipe("brats2018", Path())


def test_a_patient_that_is_there_twice_is_named(fake_brats, touch):
    root = fake_brats((1, 0, 0))
    touch(root / TRAINING / "LGG" / "Brats18_HGG_0_1" / "Brats18_HGG_0_1_t1.nii.gz")
    with pytest.raises(PreparationError, match=r"LGG/Brats18_HGG_0_1/.*_t1\.nii\.gz: the same case as .*HGG"):
        data_set_recipe("brats2018", root)


def test_another_folder_is_told_what_was_looked_for_and_what_is_there(tmp_path):
    (tmp_path / "BraTS19_X").mkdir()
    with pytest.raises(
        PreparationError, match=r"(?s)Brats18_\*/Brats18_\*\.nii\*.*Found there: BraTS19_X/.*upenn\.edu"
    ):
        data_set_recipe("brats2018", tmp_path)


@pytest.fixture
def small_brats(tmp_path, write_nifti) -> Path:
    """Two patients with voxels, one of each archive; LPS as the home has it."""
    root, affine = tmp_path / "small", np.diag([-1.0, -1, 1, 1])
    for folder in (f"{TRAINING}/LGG/Brats18_2013_0_1", f"{VALIDATION}/Brats18_CBICA_AAM_1"):
        stem = root / folder / Path(folder).name
        for kind in SEQUENCES:
            write_nifti(Path(f"{stem}_{kind}.nii.gz"), affine=affine)
    write_nifti(
        Path(f"{root / TRAINING}/LGG/Brats18_2013_0_1/Brats18_2013_0_1_seg.nii.gz"), (6, 5, 4), (1, 2, 4), affine
    )
    return root


def test_four_sequences_become_four_volumes_or_four_channels(small_brats, tmp_path):
    alone = prepare(data_set_recipe("brats2018", small_brats), tmp_path / "alone")
    channels = prepare(data_set_recipe("brats2018_channels", small_brats), tmp_path / "channels")
    assert {entry.shape for entry in alone.entries} == {(4, 5, 6)}
    assert len(alone.entries) == 8
    for entry in channels.entries:
        assert entry.shape == (4, 4, 5, 6)
        single = {row.id: alone.open(row) for row in alone.entries if row.patient == entry.patient}
        for number, sequence in enumerate(SEQUENCES):
            np.testing.assert_array_equal(channels.open(entry)[number], single[f"{entry.id}-{sequence}"])


@pytest.mark.parametrize(("word", "numbers"), [("brats2018_channels", (1, 2, 3)), ("brats2018_flair", (1, 1, 1))])
def test_the_tumour_s_parts_arrive_under_their_new_numbers(small_brats, tmp_path, word, numbers):
    manifest = prepare(data_set_recipe(word, small_brats), tmp_path / "out")
    manifest.check_files()
    (entry,) = (entry for entry in manifest.entries if entry.label_path is not None)
    labels = manifest.open_label(entry)
    assert labels.shape == (4, 5, 6)
    for column in range(6):  # i runs to the left, as columns do
        assert set(np.unique(labels[:, :, column])) == {numbers[column] if column < 3 else 0}
    assert [entry.split for entry in manifest.entries if entry.label_path is None] == ["test"]
