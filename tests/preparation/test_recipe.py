from __future__ import annotations

from pathlib import Path

import pytest

from vissl_jointssl.preparation.errors import PreparationError
from vissl_jointssl.preparation.recipe import Options, Patch, Recipe, Source


def recipe(options: Options | None = None, **source: object) -> Recipe:
    facts = {"id": "a", "path": "a.nii", "patient": "p", **source}
    return Recipe("set", Path(), (Source(**facts),), options or Options())


def test_a_plain_recipe_is_sound():
    recipe().check()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"slice_axis": "axal"}, "slice_axis is 'axal', expected one of axial"),
        ({"spacing": (1.0, 0.0, 1.0)}, r"spacing is \(1.0, 0.0, 1.0\), expected millimetres above 0"),
        ({"tile_size": (8, 8, 8), "tile_stride": (8, 9, 8)}, r"tile_stride is \(8, 9, 8\), expected 1 to tile_size"),
        ({"tile_stride": (8, 9, 8)}, "tile_stride is set without tile_size"),
        ({"minimum_foreground": 1.0}, "minimum_foreground is 1.0, expected a share"),
        ({"ct_window": (5.0, 5.0)}, r"ct_window is \(5.0, 5.0\), expected \(low, high\) in HU"),
        ({"stored_type": "int16"}, "stored_type is 'int16', expected one of uint16, uint8"),
        ({"fourth_axis": "last"}, "fourth_axis is 'last', expected one of first, channels, volumes"),
        ({"image_form": "png"}, "image_form is 'png', expected one of decoded, original"),
        ({"patch_size": (8, 0, 8)}, r"patch_size is \(8, 0, 8\), expected voxels from 1"),
        ({"image_size": 0}, "image_size is 0, expected pixels from 1"),
        ({"percentiles": (99.0, 1.0)}, r"percentiles is \(99.0, 1.0\), expected"),
    ],
)
def test_faulty_options_are_named(options, message):
    with pytest.raises(PreparationError, match=message):
        recipe(Options(**options)).check()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"id": "../a"}, "source id '../a' cannot name a file"),
        ({"id": ""}, "source id '' cannot name a file"),
        ({"kind": "movie"}, "has kind 'movie', expected one of volume, image"),
        ({"split": "tran"}, "has split 'tran', expected one of train, val, test"),
        ({"label_path": "l.nii", "plane_paths": ("b.gif",)}, "has a label map and label planes"),
        ({"boxes": ()}, "is a volume with boxes"),
        ({"kind": "image", "channel_paths": ("b.nii",)}, "is an image with patches, channels or slices"),
        ({"array_names": ("a", ""), "label_path": "l.nii"}, "names arrays of a .npz and other files"),
        ({"patches": (Patch((0.0, 0.0, 0.0)),)}, "has patches, but patch_size is not set"),
    ],
)
def test_faulty_sources_are_named(source, message):
    with pytest.raises(PreparationError, match=message):
        recipe(**source).check()


def test_all_faults_come_at_once():
    source = Source("a", "a.nii", "p")
    faulty = Recipe("set", Path(), (source, source), Options(slice_axis="x"), test_share=1.0)
    with pytest.raises(PreparationError, match="occurs 2 times") as error:
        faulty.check()
    assert "slice_axis is 'x'" in str(error.value)
    assert "validation_share and test_share are (0.0, 1.0)" in str(error.value)
    with pytest.raises(PreparationError, match="there is no source"):
        Recipe("set", Path(), ()).check()


def test_a_patient_is_in_one_split():
    sources = tuple(Source(split, "a.nii", "p", split=split) for split in ("train", "test"))
    with pytest.raises(PreparationError, match=r"'test' is in split 'test', and another of its patient in 'train'"):
        Recipe("set", Path(), sources).check()
    samples = tuple(Source(split, "m.npz", "p", split=split, array_names=(split, "")) for split in ("train", "test"))
    Recipe("set", Path(), samples).check()  # whose samples are patients of their own
