"""Where the pixels of a view of the crop family come from: functions of slices, the same for every slice."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from vissl_jointssl.views.along_axis import along_axis, slab_matrix
from vissl_jointssl.views.drawing import ViewParameters


def pool_slices(slices: Tensor, parameters: ViewParameters) -> Tensor:
    """Average slices `(..., H, W)` that are at least twice as fine as the view; others are returned as they are.

    One bilinear sample of several pixels would alias. What was pooled once is not pooled again, so that a loader worker
    may do it and send fewer pixels.
    """
    sides = slices.shape[-2:]
    factors = _pixels_per_pixel(sides, parameters)
    if max(factors) < 2:
        return slices
    height, width = (
        max(1, round(side / max(1, math.floor(factor)))) for side, factor in zip(sides, factors, strict=True)
    )
    if (height, width) == tuple(sides):
        return slices
    return functional.adaptive_avg_pool2d(slices, (height, width))


def resample(slices: Tensor, parameters: ViewParameters) -> Tensor:
    """Crop, mirror, rotate and resize slices `(C, n, H, W)` in one bilinear pass, then lay the view's own slices.

    Where a rotated crop looks past the slice, the slice is mirrored: zeros would draw dark wedges whose slant gives
    the rotation away, which a network learns sooner than anatomy.

    Returns:
        `(existing slices, C, H, W)` of the view, never the memory that was given.
    """
    view = _resample_planes(slices, parameters)
    if parameters.resampled is not None:
        view = along_axis(view, slab_matrix(view.shape[1], *parameters.resampled), -3)
    if parameters.flip_slices:
        view = view.flip(1)
    return view.transpose(0, 1)


def _resample_planes(slices: Tensor, parameters: ViewParameters) -> Tensor:
    (x_by_x, x_by_y, shift_x), (y_by_x, y_by_y, shift_y) = parameters.affine
    kept = slices.shape[2:] == parameters.size and shift_x == shift_y == x_by_y == y_by_x == 0
    if kept and abs(x_by_x) == abs(y_by_y) == 1:
        # Nothing but mirroring: reversing indices is exact, interpolation is so only to a few units in the last place.
        return slices.flip([axis for axis, sign in ((2, y_by_y), (3, x_by_x)) if sign < 0])
    slices = pool_slices(slices, parameters)
    affine = torch.tensor([parameters.affine], dtype=slices.dtype, device=slices.device)
    grid = functional.affine_grid(affine, [1, 1, *parameters.size], align_corners=False)
    # Slices as channels of one image: places and weights are then worked out once, not once for each slice.
    image = slices.flatten(0, 1)[None]
    view = functional.grid_sample(image, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    return view.view(*slices.shape[:2], *parameters.size)


def _pixels_per_pixel(sides: tuple[int, ...], parameters: ViewParameters) -> tuple[float, float]:
    """Slice pixels per view pixel along H and W."""
    height, width = parameters.size
    (x_by_x, x_by_y, _), (y_by_x, y_by_y, _) = parameters.affine
    return (
        sides[0] * math.hypot(y_by_y / height, y_by_x / width),
        sides[1] * math.hypot(x_by_y / height, x_by_x / width),
    )
