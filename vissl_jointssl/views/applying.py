"""Applying a view of the crop family: a function of the volume and the parameters alone."""

from __future__ import annotations

import math
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from vissl_jointssl.views.drawing import ViewParameters

MISSING_SLICE = float("nan")  # a slice that does not exist is NaN in every voxel

Volume = TypeVar("Volume", Tensor, np.ndarray)


def crop_window(volume: Volume, parameters: ViewParameters) -> Volume:
    """The slices of a volume `(F, H, W)` or `(C, F, H, W)` that are in the view; of a mapped one, nothing is read."""
    return volume[..., parameters.first_slice : parameters.first_slice + parameters.slices, :, :]


def apply_crop_view(slices: Tensor, parameters: ViewParameters) -> Tensor:
    """Make a view.

    Args:
        slices: What `crop_window` gives, `(slices, H, W)` or `(C, slices, H, W)`, grey values in [0, 1].
        parameters: The view.

    Returns:
        `(F, C, H, W)` of the view's own F, H and W, in [0, 1]; missing slices, at the end, are `MISSING_SLICE`.

    Raises:
        ValueError: If they are not floating point, or their number is not the view's.
    """
    if slices.ndim not in (3, 4) or not slices.is_floating_point():
        raise ValueError(
            f"slices are {tuple(slices.shape)} of {slices.dtype}; expected (F, H, W) or (C, F, H, W) in [0, 1], "
            "see as_unit_interval()"
        )
    if slices.shape[-3] != parameters.slices:
        raise ValueError(f"the view has {parameters.slices} slices, got {slices.shape[-3]}; cut them out with window()")
    view = _resample(slices.unsqueeze(1) if slices.ndim == 3 else slices.transpose(0, 1), parameters)
    if parameters.resampled is not None:
        view = _resample_slices(view, *parameters.resampled)
    if parameters.flip_slices:
        view = view.flip(0)
    if parameters.blur:
        view = _blur(view, parameters.blur)
    view = _grey_values(view, parameters)
    missing = parameters.num_slices - len(view)
    return functional.pad(view, (0, 0, 0, 0, 0, 0, 0, missing), value=MISSING_SLICE)


def _resample(slices: Tensor, parameters: ViewParameters) -> Tensor:
    """Crop, mirror, rotate and resize `(n, C, H, W)` in one bilinear pass, the same for every slice.

    Where a rotated crop looks past the slice, the slice is mirrored: zeros would draw dark wedges whose slant gives
    the rotation away, which a network learns sooner than anatomy.
    """
    height, width = parameters.size
    (x_by_x, x_by_y, shift_x), (y_by_x, y_by_y, shift_y) = parameters.affine
    kept = slices.shape[2:] == parameters.size and shift_x == shift_y == x_by_y == y_by_x == 0
    if kept and abs(x_by_x) == abs(y_by_y) == 1:
        # Nothing but mirroring: reversing indices is exact, interpolation is so only to a few units in the last place.
        return slices.flip([axis for axis, sign in ((2, y_by_y), (3, x_by_x)) if sign < 0])
    # Slice pixels per view pixel along each axis. One bilinear sample of several pixels would alias: average first.
    down = (
        slices.shape[2] * math.hypot(y_by_y / height, y_by_x / width),
        slices.shape[3] * math.hypot(x_by_y / height, x_by_x / width),
    )
    if max(down) >= 2:
        pooled_height, pooled_width = (
            max(1, round(side / max(1, math.floor(factor))))
            for side, factor in zip(slices.shape[2:], down, strict=True)
        )
        slices = functional.adaptive_avg_pool2d(slices, (pooled_height, pooled_width))
    affine = torch.tensor(parameters.affine, dtype=slices.dtype, device=slices.device)
    grid = functional.affine_grid(
        affine.expand(len(slices), 2, 3), [*slices.shape[:2], height, width], align_corners=False
    )
    return functional.grid_sample(slices, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def _resample_slices(slices: Tensor, count: int, start: float, step: float) -> Tensor:
    """`count` slices at `start + i * step` of `(n, C, H, W)`.

    Linear between two slices; where the view's slices are farther apart than the volume's, a weighted mean of all that
    lie nearer than `step`, as a thick slice is of what it covers, and against aliasing.
    """
    places = start + step * torch.arange(count, dtype=torch.float64)
    distances = (places[:, None] - torch.arange(len(slices))).abs() / max(1.0, step)
    weights = (1 - distances).clamp(min=0)
    weights = weights / weights.sum(dim=1, keepdim=True)
    return torch.tensordot(weights.to(slices), slices, dims=1)


def _blur(view: Tensor, deviation: float) -> Tensor:
    """Gaussian blur of `(n, C, H, W)` in the plane, edges continued."""
    radius = math.ceil(3 * deviation)
    steps = torch.arange(-radius, radius + 1, dtype=view.dtype, device=view.device)
    kernel = torch.exp(-0.5 * (steps / deviation) ** 2)
    kernel = kernel / kernel.sum()
    padded = functional.pad(view, (radius, radius, radius, radius), mode="replicate")
    rows = functional.conv2d(padded.flatten(0, 1).unsqueeze(1), kernel.view(1, 1, -1, 1))
    return functional.conv2d(rows, kernel.view(1, 1, 1, -1)).view(view.shape)


def _grey_values(view: Tensor, parameters: ViewParameters) -> Tensor:
    if parameters.gamma != 1:
        view = view.clamp(0, 1) ** parameters.gamma
    if parameters.contrast != 1 or parameters.brightness != 0:
        mean = view.mean(dim=(0, 2, 3), keepdim=True)  # of each channel: sequences of an MRI differ in level
        view = (view - mean) * parameters.contrast + mean + parameters.brightness
    if parameters.noise:
        generator = torch.Generator().manual_seed(parameters.noise_seed)
        # On the CPU and in float32 whatever the view's device, so that a replay there gives the same noise.
        view = view + parameters.noise * torch.randn(view.shape, generator=generator).to(view)
    return view.clamp(0, 1)
