from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest

from vissl_jointssl.preparation.datasets import data_set_recipe
from vissl_jointssl.preparation.errors import PreparationError
from vissl_jointssl.preparation.pipeline import prepare

HEART = {"labels": {"0": "background", "1": "left atrium"}, "modality": {"0": "MRI"}}
BRAIN = {
    "labels": {"0": "background", "1": "edema", "2": "non-enhancing tumor", "3": "enhancing tumour"},
    "modality": {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"},
}


def write_list(task: Path, content: dict, training: list[str], test: list[str]) -> None:
    """A `dataset.json` as the Decathlon writes it."""
    content = {
        "name": task.name,
        "licence": "CC-BY-SA 4.0",
        "tensorImageSize": "3D",
        **content,
        "numTraining": len(training),
        "numTest": len(test),
        "training": [{"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"} for name in training],
        "test": [f"./imagesTs/{name}" for name in test],
    }
    (task / "dataset.json").write_text(json.dumps(content))


@pytest.fixture
def fake_heart(tmp_path, touch) -> Path:
    """Task02_Heart with its 20 and 10 scans as empty files, and the files of macOS that its archive holds."""
    task = tmp_path / "Task02_Heart"
    training, test = (
        [f"la_{number:03}.nii.gz" for number in numbers] for numbers in (range(0, 40, 2), range(1, 21, 2))
    )
    for name in training:
        for folder in ("imagesTr", "labelsTr"):
            touch(task / folder / name)
            touch(task / folder / f"._{name}")
    for name in test:
        touch(task / "imagesTs" / name)
    touch(task / "._dataset.json")
    write_list(task, HEART, training, test)
    return task


def test_heart_has_twenty_labelled_and_ten_unlabelled_mr_that_all_train(fake_heart):
    recipe = data_set_recipe("msd", fake_heart)
    recipe.check()
    labelled = [source for source in recipe.sources if source.label_path is not None]
    assert (len(recipe.sources), len(labelled)) == (30, 20)
    assert {source.modality for source in recipe.sources} == {"MR"}
    assert all(source.label_path == source.path.replace("images", "labels") for source in labelled)
    assert {source.split for source in labelled} == {None}  # drawn, by shares that are 0 unless somebody asks for more
    assert (recipe.validation_share, recipe.test_share) == (0, 0)
    assert {source.split for source in recipe.sources if source.label_path is None} == {"train"}
    assert recipe.label_names == ("left atrium",)
    assert len({source.patient for source in recipe.sources}) == 30


def test_the_folder_above_is_taken_if_it_holds_one_task(fake_heart, tmp_path, touch):
    assert len(data_set_recipe("msd", tmp_path).sources) == 30
    touch(tmp_path / "Task09_Spleen" / "dataset.json")
    with pytest.raises(PreparationError, match=r"Task09_Spleen/dataset\.json: the same case as .*Task02_Heart"):
        data_set_recipe("msd", tmp_path)


@pytest.mark.parametrize(
    ("modality", "expected"),
    [({"0": "CT"}, "CT"), ({"0": "MRI"}, "MR"), (BRAIN["modality"], "MR"), ({"0": "T2", "1": "ADC"}, "MR")],
)
def test_every_task_s_modality_is_one_of_ours(tmp_path, touch, modality, expected):
    touch(tmp_path / "imagesTs" / "a.nii.gz")
    write_list(tmp_path, {**HEART, "modality": modality}, [], ["a.nii.gz"])
    (source,) = data_set_recipe("msd", tmp_path).sources
    assert source.modality == expected


@pytest.mark.parametrize(
    "change",
    [
        {"modality": {"0": "US"}},
        {"modality": "MRI"},
        {"labels": {"background": 0, "left atrium": 1}},
        {"test": None},
        {"training": [{"image": "/etc/passwd", "label": "./labelsTr/a.nii.gz"}]},
        {"test": ["../imagesTs/a.nii.gz"]},
        {"training": ["./imagesTr/a.nii.gz"]},
    ],
)
def test_a_list_of_another_form_is_refused(fake_heart, change):
    file = fake_heart / "dataset.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(PreparationError, match=r"dataset\.json: is not the list of a Decathlon task"):
        data_set_recipe("msd", fake_heart)


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff\xfe"])
def test_a_broken_list_is_refused(fake_heart, content):
    (fake_heart / "dataset.json").write_bytes(content)
    with pytest.raises(PreparationError, match=r"dataset\.json: is not the list of a Decathlon task"):
        data_set_recipe("msd", fake_heart)


def test_half_a_pair_and_files_that_are_not_listed_or_listed_twice_are_named(fake_heart, touch):
    (fake_heart / "labelsTr" / "la_004.nii.gz").unlink()
    touch(fake_heart / "imagesTs" / "la_099.nii.gz")
    file = fake_heart / "dataset.json"
    content = json.loads(file.read_text())
    content["test"].append(content["test"][0])
    file.write_text(json.dumps(content))
    with pytest.raises(PreparationError) as caught:
        data_set_recipe("msd", fake_heart)
    lines = str(caught.value).replace(f"{fake_heart}/", "").splitlines()[1:]
    assert lines == [
        "  - imagesTs/la_099.nii.gz: dataset.json does not list it",
        "  - imagesTs/la_001.nii.gz: dataset.json lists it twice",
        "  - labelsTr/la_004.nii.gz: is missing",
    ]


def test_a_part_of_a_task_is_prepared_and_said(fake_heart, caplog):
    for folder in ("imagesTr", "labelsTr"):
        (fake_heart / folder / "la_004.nii.gz").unlink()
    with caplog.at_level(logging.WARNING):
        assert len(data_set_recipe("msd", fake_heart).sources) == 29
    assert "29 of the 30 scans that it lists are here" in caplog.text


def test_another_folder_is_told_what_was_looked_for_and_what_is_there(tmp_path):
    (tmp_path / "imagesTr").mkdir()
    with pytest.raises(PreparationError, match=r"(?s)dataset\.json.*Found there: imagesTr/.*medicaldecathlon\.com"):
        data_set_recipe("msd", tmp_path)


def test_four_sequences_on_a_fourth_axis_become_channels(tmp_path, write_nifti):
    task = tmp_path / "Task01_BrainTumour"
    write_nifti(task / "imagesTr" / "BRATS_001.nii.gz", (6, 5, 4, 4))
    labels = write_nifti(task / "labelsTr" / "BRATS_001.nii.gz", labels=(1, 2, 3))
    write_nifti(task / "imagesTs" / "BRATS_485.nii.gz", (6, 5, 4, 4))
    write_list(task, BRAIN, ["BRATS_001.nii.gz"], ["BRATS_485.nii.gz"])
    manifest = prepare(data_set_recipe("msd", task), tmp_path / "out")
    manifest.check_files()
    assert [entry.shape for entry in manifest.entries] == [(4, 4, 5, 6)] * 2
    assert {entry.split for entry in manifest.entries} == {"train"}
    (labelled,) = (entry for entry in manifest.entries if entry.label_path is not None)
    # i runs to the right and becomes W from right to left, j to the front and becomes H, k to the head and becomes F
    np.testing.assert_array_equal(manifest.open_label(labelled), labels.transpose(2, 1, 0)[:, ::-1, ::-1])
