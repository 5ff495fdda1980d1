"""Applying views of the crop family: a function of the volumes and the parameters alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from torch import Tensor

from vissl_jointssl.views.drawing import ViewParameters
from vissl_jointssl.views.grey_values import blur, change_grey_values
from vissl_jointssl.views.planes import resample

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
    _check(slices, parameters)
    channels = 1 if slices.ndim == 3 else len(slices)
    view = slices.new_empty(1, parameters.num_slices, channels, *parameters.size)
    fill_crop_views(view, [slices], [parameters])
    return view[0]


def fill_crop_views(
    views: Tensor, windows: Sequence[Tensor], parameters: Sequence[ViewParameters], *, same_noise: bool = True
) -> None:
    """Make a batch of views of one size.

    Args:
        views: Where they go, `(B, F, C, H, W)`, on the device that the windows are on.
        windows: As `apply_crop_view`'s slices; C is the same for all, F, H and W are not.
        parameters: One view of each.
        same_noise: Whether the noise is the same on every device, see `fill_with_noise`.

    Raises:
        ValueError: As `apply_crop_view`.
    """
    existing = []
    for place, slices, view in zip(views, windows, parameters, strict=True):
        _check(slices, view)
        placed = resample(slices[None] if slices.ndim == 3 else slices, view)
        existing.append(len(placed))
        place[: len(placed)] = blur(placed, view.blur) if view.blur else placed
        place[len(placed) :] = 0
    change_grey_values(views, parameters, existing, same_noise=same_noise)
    for view, count in zip(views, existing, strict=True):
        view[count:] = MISSING_SLICE


def _check(slices: Tensor, parameters: ViewParameters) -> None:
    if slices.ndim not in (3, 4) or not slices.is_floating_point():
        raise ValueError(
            f"slices are {tuple(slices.shape)} of {slices.dtype}; expected (F, H, W) or (C, F, H, W) in [0, 1], "
            "see as_unit_interval()"
        )
    if slices.shape[-3] != parameters.slices:
        raise ValueError(f"the view has {parameters.slices} slices, got {slices.shape[-3]}; cut them out with window()")
