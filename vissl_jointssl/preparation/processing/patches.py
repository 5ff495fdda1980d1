"""Small regions around points of a scan."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vissl_jointssl.preparation.errors import ReadError
from vissl_jointssl.preparation.recipe import Patch


def patch_starts(
    patches: Sequence[Patch], affine: np.ndarray, shape: tuple[int, ...], size: tuple[int, int, int], path: Path
) -> list[tuple[int, int, int]]:
    """The first index (f, h, w) of each patch, which may lie outside the scan.

    The voxel that holds the centre is at index `size // 2` of the patch.

    Args:
        patches: Centres in RAS mm.
        affine: Index (f, h, w) to RAS mm.
        shape: `(F, H, W)` of the scan.
        size: Of the patches.
        path: Of the scan, for the error.

    Raises:
        ReadError: If a centre is outside the scan, naming every such patch.
    """
    centres = np.array([patch.centre for patch in patches], dtype=float).reshape(-1, 3)
    inverse = np.linalg.inv(affine)
    positions = centres @ inverse[:3, :3].T + inverse[:3, 3]
    nearest = np.floor(positions + 0.5)
    outside = np.flatnonzero(~((nearest >= 0) & (nearest < np.array(shape[-3:]))).all(axis=1))
    if outside.size:
        shown = ", ".join(f"{number} at {patches[number].centre}" for number in outside[:5])
        more = f" and {outside.size - 5} more" if outside.size > 5 else ""
        reason = f"{outside.size} of its {len(patches)} patches have their centre outside the scan: {shown}{more}"
        raise ReadError(
            path, reason, "check the table: centres are (x, y, z) in RAS mm, LPS has x and y negated", "geometry"
        )
    starts = nearest.astype(int) - np.array(size) // 2
    return [(int(f), int(h), int(w)) for f, h, w in starts]


def cut_patch(array: np.ndarray, start: tuple[int, int, int], size: tuple[int, int, int]) -> np.ndarray:
    """`(..., F, H, W)` cut to `size` from `start`; what lies outside is 0."""
    patch = np.zeros((*array.shape[:-3], *size), array.dtype)
    overlaps = [_overlap(*axis) for axis in zip(start, size, array.shape[-3:], strict=True)]
    (f, f_in), (h, h_in), (w, w_in) = overlaps
    patch[..., f_in, h_in, w_in] = array[..., f, h, w]
    return patch


def _overlap(start: int, size: int, length: int) -> tuple[slice, slice]:
    """Where an axis of a scan and that of a patch meet: indices of the scan, and of the patch."""
    low = min(max(0, start), length)
    high = max(low, min(length, start + size))
    return slice(low, high), slice(low - start, high - start)
