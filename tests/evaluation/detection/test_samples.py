from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from vissl_jointssl.evaluation.detection.samples import (
    batched,
    image_tensor,
    instance_boxes,
    label_faults,
    mirrored,
    training_target,
    true_boxes,
)
from vissl_jointssl.manifest import Box, Manifest


def test_boxes_of_instances_agree_with_loops_over_pixels() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        labels = rng.integers(0, 6, (9, 12)) * 7001 * (rng.uniform(size=(9, 12)) < 0.2)
        expected = []
        for number in sorted(set(labels.flatten().tolist()) - {0}):
            pixels = [(y, x) for y in range(9) for x in range(12) if labels[y, x] == number]
            ys, xs = [y for y, _ in pixels], [x for _, x in pixels]
            expected.append(Box(0, min(xs), min(ys), max(xs) + 1, max(ys) + 1))
        assert list(instance_boxes(labels.astype(np.uint16))) == expected


def test_a_map_of_one_instance_everywhere_and_of_none_at_all() -> None:
    assert instance_boxes(np.full((4, 5), 3, dtype=np.uint8)) == (Box(0, 0, 0, 5, 4),)
    assert instance_boxes(np.zeros((4, 5), dtype=np.uint8)) == ()
    with pytest.raises(ValueError, match=r"has the shape \(2, 4, 5\), expected one plane"):
        instance_boxes(np.zeros((2, 4, 5), dtype=np.uint8))


def test_label_maps_give_the_boxes_that_the_rows_would_have(make_manifest: Callable[..., Manifest]) -> None:
    written = [make_manifest().open_boxes(row) for row in make_manifest().entries]
    maps = make_manifest(maps=True)
    assert [tuple(sorted(true_boxes(maps, row, True), key=str)) for row in maps.entries] == [
        tuple(sorted(boxes, key=str)) for boxes in written
    ]


def test_boxes_of_a_row_come_before_its_label_map(make_manifest: Callable[..., Manifest]) -> None:
    manifest = make_manifest(classes=2)
    row = next(row for row in manifest.entries if any(box.label for box in manifest.open_boxes(row)))
    assert true_boxes(manifest, replace(row, label_path="0_labels.npy"), True) == manifest.open_boxes(row)


def test_an_image_has_three_channels_in_the_unit_interval(make_manifest: Callable[..., Manifest]) -> None:
    manifest = make_manifest()
    image = image_tensor(manifest, manifest.entries[0])
    assert image.shape == (3, 64, 64)
    torch.testing.assert_close(image[2], torch.from_numpy(manifest.open(manifest.entries[0]) / np.float32(255)))
    coloured = np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    np.save(manifest.root / "rgb.npy", coloured)
    image = image_tensor(manifest, replace(manifest.entries[0], path="rgb.npy", shape=(4, 5, 3)))
    assert image.shape == (3, 4, 5)
    assert float(image[1, 2, 3]) == pytest.approx(coloured[2, 3, 1] / 255)


def test_a_mirrored_box_lies_around_the_mirrored_pixels_and_twice_is_once() -> None:
    image = torch.zeros(3, 8, 10)
    image[:, 2:5, 1:4] = 1
    target = training_target([Box(2, 1, 2, 4, 5)])
    assert target["labels"].tolist() == [3]
    flipped, moved = mirrored(image, target)
    left, top, right, bottom = (int(edge) for edge in moved["boxes"][0])
    assert flipped[:, top:bottom, left:right].min() == 1
    assert flipped.sum() == image.sum() == 3 * (bottom - top) * (right - left)
    again, back = mirrored(flipped, moved)
    assert again.equal(image)
    assert back["boxes"].equal(target["boxes"])
    assert training_target([])["boxes"].shape == (0, 4)


def test_every_row_at_fault_is_named(make_manifest: Callable[..., Manifest], tmp_path: Path) -> None:
    manifest = make_manifest(classes=2)
    planes = replace(manifest.entries[0], id="planes", boxes_path=None, label_path="planes.npy")
    np.save(manifest.root / "planes.npy", np.zeros((2, 64, 64), dtype=np.uint8))
    neither = replace(manifest.entries[1], id="neither", boxes_path=None)
    faults = label_faults(manifest, [planes, neither, *manifest.entries], True, 1)
    assert faults[0].startswith("row 'planes': a label map has the shape (2, 64, 64)")
    assert "neither" in faults[1]
    unknown = [row.id for row in manifest.entries if any(box.label for box in manifest.open_boxes(row))]
    assert len(unknown) > 1
    assert faults[2:] == [
        f"row {id!r} has boxes of the classes [1], but options.classes names 1, from 0" for id in unknown
    ]


def test_groups_keep_order_and_the_last_may_be_smaller() -> None:
    rows = list(range(7))
    assert [list(group) for group in batched(rows, 3)] == [[0, 1, 2], [3, 4, 5], [6]]  # type: ignore[arg-type]
