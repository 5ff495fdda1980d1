from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from vissl_jointssl.evaluation.metrics.masks import dice, hausdorff95, iou


def blobs(seed: int, shape: tuple[int, ...] = (7, 9, 8)) -> tuple[np.ndarray, np.ndarray]:
    """Two random masks that share a part; some reach the border of the array."""
    rng = np.random.default_rng(seed)
    first = rng.random(shape) < rng.uniform(0.05, 0.6)
    second = np.where(rng.random(shape) < 0.7, first, rng.random(shape) < 0.3)
    return first, second


def surface(mask: np.ndarray) -> list[tuple[int, ...]]:
    """Voxels of a mask with a face neighbour outside of it, one by one."""
    found = []
    for index in zip(*np.nonzero(mask), strict=True):
        for axis, step in itertools.product(range(mask.ndim), (-1, 1)):
            near = list(index)
            near[axis] += step
            if not 0 <= near[axis] < mask.shape[axis] or not mask[tuple(near)]:
                found.append(tuple(int(i) for i in index))
                break
    return found


def hausdorff95_by_loops(predicted: np.ndarray, truth: np.ndarray, spacing: tuple[float, ...]) -> float:
    sides = surface(predicted), surface(truth)
    results = []
    for mine, other in (sides, sides[::-1]):
        nearest = sorted(
            min(math.sqrt(sum(((a - b) * s) ** 2 for a, b, s in zip(p, q, spacing, strict=True))) for q in other)
            for p in mine
        )
        rank = 0.95 * (len(nearest) - 1)
        low = math.floor(rank)
        high = min(low + 1, len(nearest) - 1)
        results.append(nearest[low] + (rank - low) * (nearest[high] - nearest[low]))
    return max(results)


@pytest.mark.parametrize("seed", range(5))
def test_overlaps_are_counts_of_voxels_and_torchmetrics_agrees(seed: int) -> None:
    from torchmetrics.functional.classification import binary_f1_score, binary_jaccard_index

    first, second = blobs(seed)
    both = either = 0
    for a, b in zip(first.flat, second.flat, strict=True):
        both += bool(a and b)
        either += bool(a or b)
    assert iou(first, second) == both / either
    assert dice(first, second) == 2 * both / (first.sum() + second.sum())
    tensors = torch.from_numpy(first), torch.from_numpy(second)
    assert iou(first, second) == pytest.approx(float(binary_jaccard_index(*tensors)), abs=1e-6)
    assert dice(first, second) == pytest.approx(float(binary_f1_score(*tensors)), abs=1e-6)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (3.0, 0.7, 1.1)])
def test_the_distance_agrees_with_loops_over_surface_voxels(seed: int, spacing: tuple[float, ...]) -> None:
    first, second = blobs(seed, (5, 6, 5))
    expected = hausdorff95_by_loops(first, second, spacing)
    assert hausdorff95(first, second, spacing) == pytest.approx(expected, abs=1e-6)
    assert hausdorff95(second, first, spacing) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("shape", [(9, 12, 10), (20, 17)])
def test_the_distance_agrees_with_monai(shape: tuple[int, ...]) -> None:
    from monai.metrics import compute_hausdorff_distance

    spacing = (2.5, 0.8, 1.3)[: len(shape)]
    for seed in range(6):
        first, second = blobs(seed, shape)
        theirs = compute_hausdorff_distance(
            torch.from_numpy(first)[None, None],
            torch.from_numpy(second)[None, None],
            include_background=True,
            percentile=95,
            spacing=list(spacing),
        )
        assert hausdorff95(first, second, spacing) == pytest.approx(float(theirs), rel=1e-6)  # MONAI's is float32


def test_the_larger_direction_counts_and_distances_are_in_the_spacings_unit() -> None:
    truth = np.zeros((40, 5, 5), dtype=bool)
    truth[2] = True
    predicted = truth.copy()
    predicted[32, :2, :2] = True  # 4 of 29 voxels lie 30 slices away; all of the truth is found
    assert hausdorff95(predicted, truth, (1.0, 1.0, 1.0)) == pytest.approx(30)
    assert hausdorff95(predicted, truth, (2.5, 1.0, 1.0)) == pytest.approx(75)
    assert hausdorff95(truth, predicted, (2.5, 1.0, 1.0)) == pytest.approx(75)
    predicted[32] = False
    predicted[32, 0, 0] = True  # 1 of 26 is left out by the percentile
    assert hausdorff95(predicted, truth, (1.0, 1.0, 1.0)) == pytest.approx(0)


def test_moving_both_masks_changes_nothing_but_the_border_is_a_surface() -> None:
    first, second = (np.pad(mask, 3) for mask in blobs(3))
    spacing = (2.0, 1.0, 0.5)
    moved = [np.roll(mask, (2, -3, 1), axis=(0, 1, 2)) for mask in (first, second)]
    assert hausdorff95(*moved, spacing) == hausdorff95(first, second, spacing)
    full = np.ones((5, 5, 5), dtype=bool)
    inner = np.zeros_like(full)
    inner[2, 2, 2] = True
    assert hausdorff95(full, inner, (1.0, 1.0, 1.0)) == pytest.approx(math.sqrt(12))


def test_empty_masks_follow_the_written_rules() -> None:
    some, none = np.eye(4, dtype=bool), np.zeros((4, 4), dtype=bool)
    assert (iou(none, none), dice(none, none), hausdorff95(none, none, (1, 1))) == (1.0, 1.0, 0.0)
    for pair in ((some, none), (none, some)):
        assert (iou(*pair), dice(*pair)) == (0.0, 0.0)
        assert math.isnan(hausdorff95(*pair, (1, 1)))
    assert (iou(some, some), dice(some, some), hausdorff95(some, some, (1, 1))) == (1.0, 1.0, 0.0)


def test_what_cannot_be_compared_is_refused() -> None:
    some = np.eye(4, dtype=bool)
    with pytest.raises(ValueError, match=r"masks are of uint8 and bool, expected booleans"):
        iou(some.astype(np.uint8), some)
    with pytest.raises(ValueError, match=r"shapes \(3, 4\) and \(4, 4\); bring them to one grid"):
        dice(some[1:], some)
    for spacing in ((1.0,), (1.0, 0.0), (1.0, math.nan)):
        with pytest.raises(ValueError, match=r"spacing is \(1.0.*expected 2 sizes above 0"):
            hausdorff95(some, some, spacing)
