from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
import torch
import torchvision

from vissl_jointssl.manifest import Box
from vissl_jointssl.preparation.sources.box_merging import intersection_over_union, merge_boxes


def random_boxes(seed: int, count: int = 16, classes: int = 2) -> list[Box]:
    """Whole-numbered boxes of a 40 x 40 image, crowded enough for chains."""
    rng = random.Random(seed)
    boxes = []
    for _ in range(count):
        left, top = rng.randrange(30), rng.randrange(30)
        boxes.append(Box(rng.randrange(classes), left, top, left + rng.randint(4, 10), top + rng.randint(4, 10)))
    return boxes


def overlap_by_counting_pixels(first: Box, second: Box) -> float:
    """Both boxes painted on a grid and their pixels counted."""
    masks = np.zeros((2, 64, 64), bool)
    for mask, box in zip(masks, (first, second), strict=True):
        mask[int(box.top) : int(box.bottom), int(box.left) : int(box.right)] = True
    return float((masks[0] & masks[1]).sum() / (masks[0] | masks[1]).sum())


def merged_by_reachability(boxes: list[Box], threshold: float) -> list[tuple[float, ...]]:
    """The definition, slowly: who can be reached from whom over overlaps (Warshall's algorithm), then means."""
    count = len(boxes)
    reach = [[boxes[i].label == boxes[j].label and i == j for j in range(count)] for i in range(count)]
    for i, j in itertools.product(range(count), repeat=2):
        if boxes[i].label == boxes[j].label and overlap_by_counting_pixels(boxes[i], boxes[j]) > threshold:
            reach[i][j] = True
    for k, i, j in itertools.product(range(count), repeat=3):
        reach[i][j] = reach[i][j] or (reach[i][k] and reach[k][j])
    groups = {tuple(j for j in range(count) if reach[i][j]) for i in range(count)}
    merged = []
    for group in groups:
        edges = [(boxes[i].left, boxes[i].top, boxes[i].right, boxes[i].bottom) for i in group]
        merged.append((boxes[group[0]].label, *np.mean(edges, axis=0)))
    return sorted(merged)


def as_numbers(boxes: tuple[Box, ...]) -> list[tuple[float, ...]]:
    return [(box.label, box.left, box.top, box.right, box.bottom) for box in boxes]


@pytest.mark.parametrize("seed", range(20))
def test_the_overlap_is_that_of_counted_pixels_and_that_of_torchvision(seed):
    boxes = random_boxes(seed)
    edges = torch.tensor([row[1:] for row in as_numbers(tuple(boxes))], dtype=torch.float64)
    theirs = torchvision.ops.box_iou(edges, edges)
    for (i, first), (j, second) in itertools.product(enumerate(boxes), repeat=2):
        ours = intersection_over_union(first, second)
        assert ours == pytest.approx(overlap_by_counting_pixels(first, second))
        assert ours == pytest.approx(float(theirs[i, j]))


def test_boxes_that_only_touch_do_not_overlap():
    assert intersection_over_union(Box(0, 0, 0, 4, 4), Box(0, 4, 0, 8, 4)) == 0
    assert intersection_over_union(Box(0, 0, 0, 4, 4), Box(0, 5, 5, 8, 8)) == 0
    assert intersection_over_union(Box(0, 0, 0, 4, 4), Box(1, 0, 0, 4, 4)) == 1


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("threshold", [0.0, 0.2, 0.5])
def test_merging_is_that_of_the_slow_definition(seed, threshold):
    boxes = random_boxes(seed)
    merged = merge_boxes(boxes, threshold)
    assert np.allclose(as_numbers(merged), merged_by_reachability(boxes, threshold))


def test_the_random_boxes_hold_chains_groups_and_loners():
    """Or the comparison above would compare little."""
    sizes = [len(merge_boxes(random_boxes(seed))) for seed in range(30)]
    assert min(sizes) < 13
    chains = 0
    for seed in range(30):
        boxes = random_boxes(seed)
        for a, b, c in itertools.permutations(boxes, 3):
            if a.label == b.label == c.label and intersection_over_union(a, c) <= 0.2:
                chains += intersection_over_union(a, b) > 0.2 and intersection_over_union(b, c) > 0.2
    assert chains > 10


@pytest.mark.parametrize("seed", range(10))
def test_the_order_of_the_readers_changes_no_digit(seed):
    rng = random.Random(seed)
    boxes = [
        Box(box.label, box.left + rng.random(), box.top + rng.random(), box.right + 1.1, box.bottom + 1.1)
        for box in random_boxes(seed)
    ]
    merged = merge_boxes(boxes)
    for _ in range(10):
        rng.shuffle(boxes)
        assert merge_boxes(boxes) == merged


@pytest.mark.parametrize("seed", range(10))
def test_boxes_that_are_moved_or_enlarged_together_merge_in_the_same_way(seed):
    boxes = random_boxes(seed)
    merged = np.array(as_numbers(merge_boxes(boxes)))
    moved = [Box(b.label, b.left + 100, b.top - 7, b.right + 100, b.bottom - 7) for b in boxes]
    assert np.allclose(as_numbers(merge_boxes(moved)), np.add(merged, [0, 100, -7, 100, -7]))
    larger = [Box(b.label, 3 * b.left, 3 * b.top, 3 * b.right, 3 * b.bottom) for b in boxes]
    assert np.allclose(as_numbers(merge_boxes(larger)), merged * [1, 3, 3, 3, 3])


def test_an_overlap_of_exactly_the_threshold_is_not_above_it():
    """Two boxes of area 3 that share 1: 1 / (3 + 3 - 1) = 0.2."""
    touching = [Box(0, 0, 0, 3, 1), Box(0, 2, 0, 5, 1)]
    assert len(merge_boxes(touching, 0.2)) == 2
    assert merge_boxes(touching, 0.19) == (Box(0, 1.0, 0.0, 4.0, 1.0),)


def test_two_classes_at_one_place_stay_two_boxes():
    assert merge_boxes([Box(3, 0, 0, 9, 9), Box(2, 0, 0, 9, 9)]) == (Box(2, 0, 0, 9, 9), Box(3, 0, 0, 9, 9))


def test_three_readers_count_the_same_however_they_are_grouped():
    """A growing average would give the last reader half of the weight."""
    assert merge_boxes([Box(0, 0, 0, 30, 30), Box(0, 3, 0, 33, 30), Box(0, 6, 0, 36, 30)]) == (Box(0, 3, 0, 33, 30),)


def test_no_box_is_merged_to_no_box_and_one_to_itself():
    assert merge_boxes([]) == ()
    assert merge_boxes(iter([Box(1, 0, 0, 2, 2)])) == (Box(1, 0, 0, 2, 2),)


def test_an_empty_box_and_an_impossible_threshold_are_refused():
    with pytest.raises(ValueError, match=r"left=4.*is empty, expected left < right"):
        merge_boxes([Box(0, 4, 0, 4, 9)])
    with pytest.raises(ValueError, match=r"threshold is 1.*from 0 to below 1"):
        merge_boxes([], 1)
