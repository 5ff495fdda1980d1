"""A large volume cut into overlapping regions, so that a few scans make a training set."""

from __future__ import annotations

import itertools
import math

import numpy as np


def tile_starts(length: int, size: int, stride: int) -> list[int]:
    """Where tiles start along one axis: at most `stride` apart, evenly, the last one flush with the end.

    An axis not longer than the tile has one start, 0: its tile is then as short as the axis.

    Raises:
        ValueError: If size or stride is not positive, or the stride would leave gaps.
    """
    if size < 1 or not 1 <= stride <= size:
        raise ValueError(f"tile size {size} and stride {stride}: expected 1 <= stride <= size, or voxels are lost")
    room = max(0, length - size)
    steps = math.ceil(room / stride)
    return [round(step * room / steps) for step in range(steps + 1)] if steps else [0]


def tiles(
    shape: tuple[int, ...], size: tuple[int, int, int], stride: tuple[int, int, int]
) -> list[tuple[slice, slice, slice]]:
    """Every tile of `(F, H, W)` as index slices, F slowest; together they cover every voxel."""
    starts = [tile_starts(*axis) for axis in zip(shape, size, stride, strict=True)]
    return [
        (slice(f, f + size[0]), slice(h, h + size[1]), slice(w, w + size[2])) for f, h, w in itertools.product(*starts)
    ]


def dominant_label(labels: np.ndarray, minimum_share: float, minimum_margin: float) -> int | None:
    """The label that a region is about, or None where that is not clear.

    Args:
        labels: Label map `(F, H, W)` of the region, non-negative integers, of which 0 is background and never wins; or
            planes `(L, F, H, W)` of 0 and 1, which are labels 1 to L.
        minimum_share: Of the region's voxels that the winner must have.
        minimum_margin: How many times as many voxels as the runner-up it must have.
    """
    if labels.ndim == 4:
        counts = np.array([0, *(int(np.count_nonzero(plane)) for plane in labels)])
    else:
        counts = np.bincount(labels.ravel())
        counts[0] = 0
    winner = int(counts.argmax())
    runner_up = int(np.delete(counts, winner).max(initial=0))
    smallest = max(1.0, minimum_share * math.prod(labels.shape[-3:]), minimum_margin * runner_up)
    return winner if counts[winner] >= smallest else None
