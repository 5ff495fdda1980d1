"""To another voxel size: linear for intensities, nearest for labels, on one and the same grid.

The borders of the scan stay where they are (voxels are little boxes, not points), so a scan and its label map agree
voxel by voxel afterwards.
"""

from __future__ import annotations

import numpy as np

Spacing = tuple[float, float, float]


def resampled_shape(shape: tuple[int, ...], spacing: Spacing, target: Spacing) -> tuple[int, ...]:
    """`max(1, round(length * spacing / target))` along each axis."""
    return tuple(max(1, round(length * old / new)) for length, old, new in zip(shape, spacing, target, strict=True))


def resampled_affine(affine: np.ndarray, shape: tuple[int, ...], new_shape: tuple[int, ...]) -> np.ndarray:
    """The affine of an array that was brought from `shape` to `new_shape`: its index (f, h, w) to RAS mm."""
    scale = np.array(shape, dtype=float) / np.array(new_shape, dtype=float)
    to_old = np.diag([*scale, 1.0])
    to_old[:3, 3] = (scale - 1) / 2  # borders stay: the first voxel's centre is half a new voxel from them
    return np.asarray(affine) @ to_old


def resample(array: np.ndarray, shape: tuple[int, ...], *, labels: bool = False) -> np.ndarray:
    """Bring `(F, H, W)` to another shape over the same extent.

    Where the grid becomes coarser, intensities are smoothed first (Gaussian, sigma of (factor - 1) / 2 voxels), for
    without it fine texture turns into a pattern that no scanner ever recorded.

    Returns:
        float32 of the new shape; for labels, their own dtype and no value that was not there.
    """
    from scipy import ndimage

    if array.shape == shape:
        return array if labels else array.astype(np.float32)
    zoom = [new / old for new, old in zip(shape, array.shape, strict=True)]
    if labels:
        return ndimage.zoom(array, zoom, order=0, mode="nearest", grid_mode=True)
    sigma = [max(0.0, (1 / factor - 1) / 2) for factor in zoom]
    smooth = ndimage.gaussian_filter(array.astype(np.float32), sigma, mode="nearest")
    return ndimage.zoom(smooth, zoom, order=1, mode="nearest", grid_mode=True)
