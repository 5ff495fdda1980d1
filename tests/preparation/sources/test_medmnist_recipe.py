from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vissl_jointssl.preparation.decoding.medmnist import read_samples
from vissl_jointssl.preparation.errors import PreparationError
from vissl_jointssl.preparation.sources.medmnist_recipe import medmnist_recipe


def fake(path: Path, shape: tuple[int, ...] = (5, 6, 7), classes: int = 4, **changed: np.ndarray) -> Path:
    """A set of 6, 3 and 4 samples as MedMNIST packs them."""
    arrays = {}
    for split, count in (("train", 6), ("val", 3), ("test", 4)):
        rng = np.random.default_rng(count)
        arrays[f"{split}_images"] = rng.integers(0, 256, (count, *shape), dtype=np.uint8)
        arrays[f"{split}_labels"] = (np.arange(count, dtype=np.uint8) % classes)[:, None]
    np.savez_compressed(path, **(arrays | changed))
    return path


def test_each_split_is_a_source_with_the_splits_and_classes_of_the_file(tmp_path):
    recipe = medmnist_recipe(fake(tmp_path / "organ3d.npz"))
    recipe.check()
    assert (recipe.name, recipe.root, recipe.label_names) == ("organ3d", tmp_path, ("0", "1", "2", "3"))
    facts = [(source.path, source.split, source.kind, source.modality, source.array_names) for source in recipe.sources]
    assert facts == [
        ("organ3d.npz", split, "volume", "OT", (f"{split}_images", f"{split}_labels"))
        for split in ("train", "val", "test")
    ]
    counts = [sum(1 for _ in read_samples(tmp_path / source.path, source.array_names)) for source in recipe.sources]
    assert counts == [6, 3, 4]
    assert len({source.patient for source in recipe.sources}) == 3


@pytest.mark.parametrize(("shape", "kind"), [((8, 8), "image"), ((8, 8, 3), "image"), ((8, 8, 8), "volume")])
def test_axes_tell_images_from_volumes(tmp_path, shape, kind):
    assert {source.kind for source in medmnist_recipe(fake(tmp_path / "x.npz", shape)).sources} == {kind}


def test_ids_do_not_hold_the_name_of_the_file(tmp_path):
    recipe = medmnist_recipe(fake(tmp_path / "jane doe.npz"))
    recipe.check()
    assert not any("jane" in source.id + source.patient for source in recipe.sources)


def test_several_labels_a_sample_are_said_and_not_kept(tmp_path, caplog):
    labels = {f"{split}_labels": np.ones((n, 14), np.uint8) for split, n in (("train", 6), ("val", 3), ("test", 4))}
    recipe = medmnist_recipe(fake(tmp_path / "chest.npz", **labels))
    assert recipe.label_names == ()
    assert "each train sample has 14 labels, of which none is kept" in caplog.text


def test_a_file_without_labels_or_with_one_split_is_a_recipe_too(tmp_path):
    np.savez(tmp_path / "x.npz", test_images=np.zeros((2, 4, 4), np.uint8))
    (source,) = medmnist_recipe(tmp_path / "x.npz").sources
    assert (source.split, source.array_names) == ("test", ("test_images", ""))


def test_the_fault_of_every_split_comes_at_once(tmp_path):
    path = fake(tmp_path / "x.npz", val_images=np.zeros((3, 4, 4), np.int64), test_labels=np.full((4, 1), -2))
    with pytest.raises(PreparationError, match="2 of 3 splits cannot be prepared") as error:
        medmnist_recipe(path)
    assert "val_images holds int64, not uint8" in str(error.value)
    assert "test_labels has -2 at sample 0" in str(error.value)
    assert [failure.code for failure in error.value.failures] == ["unsupported", "label_values"]


def test_splits_of_two_kinds_are_refused(tmp_path):
    path = fake(tmp_path / "x.npz", val_images=np.zeros((3, 4, 4), np.uint8))
    with pytest.raises(PreparationError, match="holds train volumes, val images, test volumes"):
        medmnist_recipe(path)


def test_an_npz_of_something_else_is_refused(tmp_path):
    np.savez(tmp_path / "x.npz", image=np.zeros((4, 4, 4)))
    with pytest.raises(PreparationError, match="has none of the arrays train_images, val_images and test_images"):
        medmnist_recipe(tmp_path / "x.npz")
    with pytest.raises(PreparationError, match=r"the file cannot be prepared:\n.*does not exist"):
        medmnist_recipe(tmp_path / "none.npz")
