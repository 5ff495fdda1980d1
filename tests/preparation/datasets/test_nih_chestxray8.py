from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vissl_jointssl.preparation.data_set import WrongFolder
from vissl_jointssl.preparation.datasets import data_set_recipe
from vissl_jointssl.preparation.datasets.nih_chestxray8 import nih_chestxray8
from vissl_jointssl.preparation.errors import PreparationError
from vissl_jointssl.preparation.pipeline import prepare

TRAIN = ("00000001_000.png", "00000001_001.png", "00000002_000.png")
TEST = ("00000003_000.png", "00000003_001.png")


def fake_copy(root: Path, draw=Path.touch, folders: Sequence[str] = ("images",)) -> Path:
    """The two lists, the table and the images, dealt out to the folders; `draw` makes a file."""
    for number, name in enumerate((*TRAIN, *TEST)):
        folder = root / folders[number % len(folders)]
        folder.mkdir(parents=True, exist_ok=True)
        draw(folder / name)
    (root / "train_val_list.txt").write_text("\n".join(TRAIN) + "\n")
    (root / "test_list.txt").write_text("\n".join(TEST))  # the home's own ends without a line break
    (root / "Data_Entry_2017.csv").write_text("Image Index,Finding Labels\n00000001_000.png,Cardiomegaly|Emphysema\n")
    return root


def test_images_are_split_by_the_lists_of_the_home(tmp_path, caplog):
    recipe = data_set_recipe("nih_chestxray8", fake_copy(tmp_path))
    recipe.check()
    assert "5 of the 112120 sources" in caplog.text
    assert {source.path: source.split for source in recipe.sources} == {
        **{f"images/{name}": None for name in TRAIN},
        **{f"images/{name}": "test" for name in TEST},
    }
    assert {(source.kind, source.modality, source.label) for source in recipe.sources} == {("image", "XR", None)}


def test_the_patient_is_the_first_part_of_the_name(tmp_path):
    sources = nih_chestxray8(fake_copy(tmp_path)).sources
    patients = [source.patient for source in sources]
    assert [source.id for source in sources] == [name[:12] for name in (*TRAIN, *TEST)]
    assert (patients[0], patients[3]) == (patients[1], patients[4])
    assert len(set(patients)) == 3


def test_the_layout_of_kaggle_and_the_folders_around_are_understood(tmp_path):
    kaggle = fake_copy(tmp_path / "up/data", folders=("images_001/images", "images_012/images"))
    assert len(nih_chestxray8(kaggle).sources) == 5
    above = nih_chestxray8(tmp_path / "up")
    assert all((above.root / source.path).is_file() for source in above.sources)
    inside = nih_chestxray8(fake_copy(tmp_path / "nih") / "images")
    assert [source.path for source in inside.sources] == [f"images/{name}" for name in (*TRAIN, *TEST)]
    assert inside.root == tmp_path / "nih"


def test_a_part_of_the_archives_will_do(tmp_path):
    fake_copy(tmp_path)
    (tmp_path / "images" / TRAIN[0]).unlink()
    assert len(nih_chestxray8(tmp_path).sources) == 4


def test_an_image_that_no_list_names_is_named(tmp_path):
    fake_copy(tmp_path)
    (tmp_path / "images/00000009_000.png").touch()
    with pytest.raises(PreparationError, match=r"00000009_000.png: on none of the lists"):
        nih_chestxray8(tmp_path)


def test_an_image_that_is_there_twice_or_on_both_lists_is_named(tmp_path):
    fake_copy(tmp_path)
    (tmp_path / "images_001").mkdir()
    (tmp_path / "images_001" / TRAIN[0]).touch()
    with pytest.raises(PreparationError, match=r"00000001_000.png: the same case as"):
        nih_chestxray8(tmp_path)
    (tmp_path / "images_001" / TRAIN[0]).unlink()
    (tmp_path / "test_list.txt").write_text(TRAIN[2])
    with pytest.raises(PreparationError, match=r"00000002_000.png: on both lists"):
        nih_chestxray8(tmp_path)


@pytest.mark.parametrize("lost", ["train_val_list.txt", "test_list.txt"])
def test_a_missing_list_is_asked_for(tmp_path, lost):
    (fake_copy(tmp_path) / lost).unlink()
    with pytest.raises(WrongFolder, match=rf"not found below it: {lost}"):
        nih_chestxray8(tmp_path)
    with pytest.raises(PreparationError, match=r"(?s)Found there: Data_Entry_2017.csv, images/.*nihcc.app.box.com"):
        data_set_recipe("nih_chestxray8", tmp_path)


def test_a_tiny_copy_is_prepared_at_half_its_size(tmp_path):
    def draw(path: Path) -> None:
        """Left half dark, right half bright; the second image of a patient has four channels, as some of the home."""
        values = np.zeros((1024, 1024), np.uint8)
        values[:, 512:] = 200
        image = Image.fromarray(values)
        (image.convert("RGBA") if path.stem.endswith("1") else image).save(path)

    manifest = prepare(nih_chestxray8(fake_copy(tmp_path / "raw", draw)), tmp_path / "out")
    assert [entry.split for entry in manifest.entries] == ["train"] * 3 + ["test"] * 2
    for entry in manifest.entries:
        array = manifest.open(entry)
        assert array.shape[:2] == (512, 512)
        assert array[:, :250].max() == 0
        assert array[:, 262:].min() >= 200
