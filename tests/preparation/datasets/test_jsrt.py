from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vissl_jointssl.preparation.data_set import WrongFolder
from vissl_jointssl.preparation.datasets import data_set_recipe
from vissl_jointssl.preparation.datasets.jsrt import LABEL_NAMES, jsrt
from vissl_jointssl.preparation.errors import PreparationError
from vissl_jointssl.preparation.pipeline import prepare
from vissl_jointssl.preparation.splitting import split_of

NAMES = [f"JPCLN{number:03d}" for number in range(1, 155)] + [f"JPCNN{number:03d}" for number in range(1, 94)]
# Organ to (top, left, bottom, right) of its mask of 1024 x 1024; the heart and the left lung overlap.
ORGANS = {
    "heart": (500, 420, 800, 700),
    "left clavicle": (150, 560, 200, 800),
    "right clavicle": (150, 200, 200, 440),
    "left lung": (200, 560, 850, 850),
    "right lung": (200, 150, 850, 400),
}


def mask_path(root: Path, name: str, organ: str) -> Path:
    """In SCR's archive, fold 1 has the odd numbers."""
    return root / f"scratch/fold{1 if int(name[-3:]) % 2 else 2}/masks/{organ}/{name}.gif"


@pytest.fixture
def fake_copy(tmp_path, touch):
    """Both homes' archives unpacked side by side, files empty, with the other things that they hold."""

    def make(names: list[str]) -> Path:
        for name in names:
            touch(tmp_path / f"All247images/{name}.IMG")
            for organ in ORGANS:
                touch(mask_path(tmp_path, name, organ))
            touch(tmp_path / f"scratch/fold1/landmarks/{name}.pfs")
        touch(tmp_path / "Clinical_Information/CLNDAT_EN.txt")
        return tmp_path

    return make


def test_the_split_is_that_of_the_paper(fake_copy, caplog):
    recipe = data_set_recipe("jsrt", fake_copy(NAMES))
    recipe.check()
    assert not caplog.records
    splits = {
        source.id: source.split or split_of(source.patient, recipe.validation_share, recipe.test_share, recipe.seed)
        for source in recipe.sources
    }
    assert Counter(splits.values()) == {"train": 114, "val": 10, "test": 123}
    assert {int(name[-3:]) % 2 for name, split in splits.items() if split == "test"} == {0}


def test_each_image_has_five_planes_in_the_papers_order(fake_copy):
    root = fake_copy(NAMES[:3])
    assert LABEL_NAMES == ("heart", "left clavicle", "right clavicle", "left lung", "right lung")
    for source in jsrt(root).sources:
        assert [root / path for path in source.plane_paths] == [
            mask_path(root, source.id, name) for name in LABEL_NAMES
        ]
        assert (source.kind, source.modality, source.path) == ("image", "XR", f"All247images/{source.id}.IMG")


def test_the_newer_release_of_the_images_is_understood(tmp_path, touch):
    for name in ("JPCLN001", "JPCNN002"):
        touch(tmp_path / ("Nodule154images" if "LN" in name else "NonNodule93images") / f"{name}.dcm")
        for organ in ORGANS:
            touch(mask_path(tmp_path / "SCR", name, organ))
    assert [(source.id, source.split) for source in jsrt(tmp_path).sources] == [
        ("JPCLN001", None),
        ("JPCNN002", "test"),
    ]


def test_images_without_masks_and_masks_without_images_are_named(fake_copy):
    root = fake_copy(NAMES[:3])
    mask_path(root, "JPCLN001", "heart").unlink()
    (root / "All247images/JPCLN002.IMG").unlink()
    with pytest.raises(PreparationError, match=r"6 found") as error:
        jsrt(root)
    assert "JPCLN001.IMG: has no mask of the heart" in str(error.value)
    assert "left lung/JPCLN002.gif: its image is not there" in str(error.value)


def test_an_image_or_mask_that_is_there_twice_is_named(fake_copy, touch):
    root = fake_copy(NAMES[:2])
    second = touch(root / "Nodule154images/JPCLN001.dcm")
    with pytest.raises(PreparationError, match=r"JPCLN001.dcm: the same case as"):
        jsrt(root)
    second.unlink()
    touch(root / "scratch/fold2/masks/heart/JPCLN001.gif")
    with pytest.raises(PreparationError, match=r"JPCLN001.gif: the same case as"):
        jsrt(root)


def test_a_wrong_folder_is_refused_with_what_was_looked_for_and_found(fake_copy):
    root = fake_copy(NAMES[:2])
    with pytest.raises(WrongFolder, match=r"fold\[12\]/masks/heart.*Found there: JPCLN001.IMG, JPCLN002.IMG"):
        jsrt(root / "All247images")
    with pytest.raises(PreparationError, match=r"(?s)JPC\[LN\]N.*Found there: fold1/, fold2/.*db.jsrt.or.jp"):
        data_set_recipe("jsrt", root / "scratch")


def test_a_tiny_copy_is_prepared_and_masks_lie_on_their_organs(tmp_path, touch):
    image_path = touch(tmp_path / "raw/All247images/JPCNN002.IMG")
    values = np.full((2048, 2048), 3500, ">u2")  # 12 bits without header; what is bright has low numbers
    for organ, (top, left, bottom, right) in ORGANS.items():
        values[2 * top : 2 * bottom, 2 * left : 2 * right] = 600
        mask = np.zeros((1024, 1024), np.uint8)
        mask[top:bottom, left:right] = 255
        Image.fromarray(mask).save(touch(mask_path(tmp_path / "raw", "JPCNN002", organ)))
    image_path.write_bytes(values.tobytes())
    manifest = prepare(jsrt(tmp_path / "raw"), tmp_path / "out")
    (entry,) = manifest.entries
    assert (entry.id, entry.split, entry.modality) == ("JPCNN002", "test", "XR")
    image, planes = np.asarray(manifest.open(entry)), np.asarray(manifest.open_label(entry))
    assert (image.shape, planes.shape) == ((512, 512), (5, 512, 512))
    for plane, organ in zip(planes, LABEL_NAMES, strict=True):
        rows, columns = np.nonzero(plane)
        found = (rows.min(), columns.min(), rows.max() + 1, columns.max() + 1)
        assert np.abs(np.array(found) - np.array(ORGANS[organ]) / 2).max() <= 1
        assert plane.sum() == pytest.approx(np.prod(np.array(found)[2:] - np.array(found)[:2]))
    assert (planes[0] & planes[3]).any()  # which one map of numbers could not hold
    covered = planes.any(axis=0)
    assert np.median(image[covered]) > np.median(image[~covered])
