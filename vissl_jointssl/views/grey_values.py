"""What happens to the grey values of views of the crop family once their pixels are in place, a batch at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from vissl_jointssl.views.along_axis import along_axis, gaussian_matrix
from vissl_jointssl.views.drawing import ViewParameters
from vissl_jointssl.views.noise import fill_with_noise


def blur(view: Tensor, deviation: float) -> Tensor:
    """Gaussian blur of `(..., H, W)` in the plane, edges continued; deviation in pixels."""
    radius = math.ceil(3 * deviation)
    for axis in (-1, -2):
        view = along_axis(view, gaussian_matrix(view.shape[axis], deviation, radius, mirrored=False), axis)
    return view


def change_grey_values(
    views: Tensor, parameters: Sequence[ViewParameters], existing: Sequence[int], *, same_noise: bool
) -> None:
    """Exponent, contrast about the channel's mean, brightness and noise, in place; then within [0, 1].

    Args:
        views: `(B, F, C, H, W)`; slices that do not exist are 0.
        parameters: One for each.
        existing: How many slices of each exist; the first.
        same_noise: See `fill_with_noise`.
    """
    if any(one.gamma != 1 for one in parameters):
        # As a power, at a quarter of its price.
        views.clamp_(0, 1).log_().mul_(_column([one.gamma for one in parameters], views)).exp_()
    if any(one.contrast != 1 or one.brightness != 0 for one in parameters):
        contrast = _column([one.contrast for one in parameters], views)
        shift = _shift(views, parameters, existing, contrast)
        views.mul_(contrast).add_(shift)
    if any(one.noise for one in parameters):
        noise = _noise(views, parameters, existing, same=same_noise)
        views.addcmul_(noise, _column([one.noise for one in parameters], views))
    views.clamp_(0, 1)


def _shift(views: Tensor, parameters: Sequence[ViewParameters], existing: Sequence[int], contrast: Tensor) -> Tensor:
    """What to add once grey values are multiplied by the contrast, `(B, 1, C, 1, 1)`."""
    brightness = _column([one.brightness for one in parameters], views)
    voxels = _column([count * views.shape[3] * views.shape[4] for count in existing], views)
    mean = views.sum(dim=(1, 3, 4), keepdim=True) / voxels  # of each channel: sequences of an MRI differ in level
    return mean * (1 - contrast) + brightness


def _noise(views: Tensor, parameters: Sequence[ViewParameters], existing: Sequence[int], *, same: bool) -> Tensor:
    """Noise of deviation 1 for the slices that exist of views that have any, `(B, F, C, H, W)`."""
    noise = torch.empty_like(views)
    for into, one, count in zip(noise, parameters, existing, strict=True):
        drawn = count if one.noise else 0
        fill_with_noise(into[:drawn], one.noise_seed, same=same)
        into[drawn:] = 0
    return noise


def _column(numbers: Sequence[float], views: Tensor) -> Tensor:
    """A number for each view, `(B, 1, 1, 1, 1)`."""
    column = torch.tensor(numbers, dtype=views.dtype)
    return column.to(views.device, non_blocking=True).view(-1, 1, 1, 1, 1)
