"""Applying a released view: crop, pad, transform."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from torch import Tensor
from torch.nn import functional

from vissl_jointssl.views.released import intensity, spatial
from vissl_jointssl.views.released.parameters import (
    Affine,
    Anisotropy,
    BiasField,
    Blur,
    Flip,
    Gamma,
    Noise,
    ReleasedViewParameters,
    Transform,
    Triple,
)

Volume = TypeVar("Volume", Tensor, np.ndarray)


def released_window(volume: Volume, parameters: ReleasedViewParameters) -> Volume:
    """The voxels of a volume `(F, H, W)` or `(C, F, H, W)` that are in the view; of a mapped one, nothing is read."""
    f, h, w = (slice(first, first + kept) for first, kept in zip(parameters.first, parameters.kept, strict=True))
    return volume[..., f, h, w]


def apply_released_view(voxels: Tensor, parameters: ReleasedViewParameters, *, same_noise: bool = True) -> Tensor:
    """Make a view.

    Args:
        voxels: What `released_window` gives, `(F, H, W)` or `(C, F, H, W)`, grey values in [0, 1].
        parameters: The view.
        same_noise: Whether the noise is the same on every device, see `fill_with_noise`.

    Returns:
        `(F, C, H, W)` of the view's own F, H and W; grey values may leave [0, 1].

    Raises:
        ValueError: If they are not floating point, or their number is not the view's.
    """
    if voxels.ndim not in (3, 4) or not voxels.is_floating_point():
        raise ValueError(
            f"voxels are {tuple(voxels.shape)} of {voxels.dtype}; expected (F, H, W) or (C, F, H, W) in [0, 1], "
            "see as_unit_interval()"
        )
    if tuple(voxels.shape[-3:]) != parameters.kept:
        raise ValueError(
            f"the view has {parameters.kept} voxels, got {tuple(voxels.shape[-3:])}; cut them out with window()"
        )
    volume = voxels if voxels.ndim == 4 else voxels.unsqueeze(0)
    padding: list[int] = []
    sides = (parameters.num_slices, *parameters.size)
    for side, kept, before in zip(sides, parameters.kept, parameters.before, strict=True):
        padding = [before, side - kept - before, *padding]  # functional.pad takes the last axis first
    volume = functional.pad(volume, padding)
    if parameters.transform is not None:
        volume = _transform(volume, parameters.transform, parameters.spacing, same_noise=same_noise)
    return volume.transpose(0, 1)  # (C, F, H, W) -> (F, C, H, W)


def _transform(volume: Tensor, transform: Transform, spacing: Triple, *, same_noise: bool) -> Tensor:
    match transform:
        case Flip():
            return spatial.flip(volume, transform)
        case Affine():
            return spatial.affine(volume, transform, spacing)
        case Anisotropy():
            return spatial.anisotropy(volume, transform)
        case Noise():
            return intensity.noise(volume, transform, same_noise=same_noise)
        case Blur():
            return intensity.blur(volume, transform, spacing)
        case BiasField():
            return intensity.bias_field(volume, transform)
        case Gamma():
            return intensity.gamma(volume, transform)
