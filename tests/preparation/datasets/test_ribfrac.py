from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vissl_jointssl.preparation.datasets import data_set_recipe
from vissl_jointssl.preparation.datasets.ribfrac import ribfrac
from vissl_jointssl.preparation.errors import PreparationError
from vissl_jointssl.preparation.pipeline import prepare

FOLDERS = {  # numbers of the archive, folder of its images, folder of its labels
    (1, 300): ("ribfrac-train-images-1/Part1", "ribfrac-train-labels-1/Part1"),
    (301, 420): ("ribfrac-train-images-2/Part2", "ribfrac-train-labels-2/Part2"),
    (421, 500): ("ribfrac-val-images", "ribfrac-val-labels"),
    (501, 660): ("ribfrac-test-images", None),
}


def fake_paths(root: Path, numbers: range | tuple[int, ...]) -> list[tuple[Path, Path | None]]:
    """Where the archives put image and label of each number."""
    paths = []
    for number in numbers:
        images, labels = next(folders for (low, high), folders in FOLDERS.items() if low <= number <= high)
        label = None if labels is None else root / labels / f"RibFrac{number}-label.nii.gz"
        paths.append((root / images / f"RibFrac{number}-image.nii.gz", label))
    return paths


def fake_copy(root: Path, numbers: range | tuple[int, ...], touch) -> None:
    for image, label in fake_paths(root, numbers):
        touch(image)
        touch(root / f"__MACOSX/{image.parent.name}/._{image.name}")
        if label is not None:
            touch(label)
    for name in ("ribfrac-train-info-1.csv", "ribfrac-train-info-2.csv", "ribfrac-val-info.csv"):
        (root / name).write_text("public_id,label_id,label_code\nRibFrac1,0,0\nRibFrac1,1,-1\n")


def test_the_whole_set_has_the_splits_and_pairs_of_its_home(tmp_path, touch, caplog):
    fake_copy(tmp_path, range(1, 661), touch)
    recipe = data_set_recipe("ribfrac", tmp_path)
    recipe.check()
    assert not caplog.records
    splits = [source.split for source in recipe.sources]
    assert [splits.count(split) for split in ("train", "val", "test")] == [420, 80, 160]
    for source, (image, label) in zip(recipe.sources, fake_paths(tmp_path, range(1, 661)), strict=True):
        assert tmp_path / source.path == image
        assert (source.label_path is None) == (label is None)
        assert label is None or tmp_path / source.label_path == label
    assert len({source.patient for source in recipe.sources}) == 660


def test_other_nesting_is_understood(tmp_path, touch):
    touch(tmp_path / "a/ribfrac-val-images/ribfrac-val-images/RibFrac421-image.nii.gz")
    touch(tmp_path / "b/RibFrac421-label.nii")
    (source,) = ribfrac(tmp_path).sources
    assert (source.id, source.label_path) == ("RibFrac421", "b/RibFrac421-label.nii")


def test_scans_without_labels_and_labels_without_scans_are_named(tmp_path, touch):
    fake_copy(tmp_path, (1, 421), touch)
    (tmp_path / "ribfrac-train-labels-1/Part1/RibFrac1-label.nii.gz").unlink()
    (tmp_path / "ribfrac-val-images/RibFrac421-image.nii.gz").unlink()
    with pytest.raises(PreparationError, match=r"2 found") as error:
        ribfrac(tmp_path)
    assert "RibFrac1-image.nii.gz: its label map is not in the folder" in str(error.value)
    assert "RibFrac421-label.nii.gz: its scan is not in the folder" in str(error.value)


def test_a_number_that_is_there_twice_or_never_was_is_named(tmp_path, touch):
    fake_copy(tmp_path, (1, 501), touch)
    touch(tmp_path / "copy/RibFrac1-image.nii")
    with pytest.raises(PreparationError, match=r"the same case as .*RibFrac1-image"):
        ribfrac(tmp_path)
    (tmp_path / "copy/RibFrac1-image.nii").unlink()
    touch(tmp_path / "copy/RibFrac661-image.nii.gz")
    with pytest.raises(PreparationError, match=r"RibFrac661-image.nii.gz: scans are numbered from 1 to 660"):
        ribfrac(tmp_path)


def test_a_wrong_folder_is_refused_with_what_was_looked_for_and_found(tmp_path, touch):
    touch(tmp_path / "ribfrac-train-images-1.zip")
    with pytest.raises(PreparationError, match=r"RibFrac\*-image.*Found there: ribfrac-train-images-1.zip"):
        data_set_recipe("ribfrac", tmp_path)


def test_a_tiny_copy_is_prepared_and_every_fracture_has_one_label(tmp_path, write_nifti):
    for image, label in fake_paths(tmp_path / "raw", (1, 421, 501)):
        write_nifti(image)
        if label is not None:
            write_nifti(label, labels=(0, 1, 2, 36))
    manifest = prepare(ribfrac(tmp_path / "raw"), tmp_path / "out")
    assert [(entry.id, entry.split) for entry in manifest.entries] == [
        ("RibFrac1", "train"),
        ("RibFrac421", "val"),
        ("RibFrac501", "test"),
    ]
    first, _, last = manifest.entries
    labels = np.asarray(manifest.open_label(first))
    # Planes 1 to 3 of the file's first axis, which runs to the right; W runs to the left.
    assert np.array_equal(labels, np.broadcast_to([0, 0, 1, 1, 1, 0], labels.shape))
    assert last.label_path is None
