from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vissl_jointssl import cli
from vissl_jointssl.manifest import Box, read_manifest
from vissl_jointssl.preparation.errors import PreparationError
from vissl_jointssl.preparation.recipe import Recipe, Source
from vissl_jointssl.preparation.sources.annotated_images import with_boxes
from vissl_jointssl.preparation.sources.box_annotations import BoxAnnotations

BOXES = (Box(0, 1.0, 2.0, 3.0, 4.0),)


def recipe(*paths: str) -> Recipe:
    return Recipe("r", Path("root"), tuple(Source(f"s{n}", path, "p", "image") for n, path in enumerate(paths)))


def test_boxes_go_to_the_image_that_is_named_and_others_say_that_nobody_looked() -> None:
    annotations = BoxAnnotations({"b/x.png": BOXES, "y.png": ()}, ("cell",))
    made = with_boxes(recipe("a/x.png", "b/x.png", "deep/er/y.png", "z.png"), annotations, Path("coco.json"))
    assert [source.boxes for source in made.sources] == [None, BOXES, (), None]
    assert made.label_names == ("cell",)


def test_every_name_that_fits_no_image_or_several_is_told() -> None:
    annotations = BoxAnnotations({"x.png": BOXES, "gone.png": (), "a/y.png": (), "y.png": ()}, ("cell",))
    with pytest.raises(PreparationError) as error:
        with_boxes(recipe("a/x.png", "b/x.png", "a/y.png"), annotations, Path("coco.json"))
    for words in ("x.png fits 2 images", "gone.png fits 0 images", "y.png and a/y.png are one image"):
        assert words in str(error.value)


def test_a_coco_file_ends_as_boxes_of_the_manifest(tmp_path: Path) -> None:
    (tmp_path / "scans").mkdir()
    for name in ("a", "b"):
        pixels = np.arange(200, dtype=np.uint8).reshape(10, 20)
        Image.fromarray(np.roll(pixels, ord(name))).save(tmp_path / "scans" / f"{name}.png")
    coco = {
        "images": [{"id": 7, "file_name": "a.png"}],
        "categories": [{"id": 3, "name": "cell"}],
        "annotations": [{"id": 1, "image_id": 7, "category_id": 3, "bbox": [2, 1, 5, 4]}],
    }
    (tmp_path / "coco.json").write_text(json.dumps(coco), encoding="utf-8")
    command = [
        "prepare",
        str(tmp_path / "scans"),
        "--out",
        str(tmp_path / "out"),
        "--boxes",
        str(tmp_path / "coco.json"),
    ]
    assert cli.main(command) == 0
    manifest = read_manifest(tmp_path / "out")
    with_them = [entry for entry in manifest.entries if entry.boxes_path]
    assert len(manifest) == 2
    assert [manifest.open_boxes(entry) for entry in with_them] == [(Box(0, 2.0, 1.0, 7.0, 5.0),)]
