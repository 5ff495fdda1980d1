"""Drawing a released view: which of the seven transforms, and its numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from vissl_jointssl.views.released.parameters import (
    Affine,
    Anisotropy,
    BiasField,
    Blur,
    Flip,
    Gamma,
    Noise,
    ReleasedRecipe,
    ReleasedViewParameters,
    Transform,
    Triple,
)

BIAS_COEFFICIENTS = 20  # monomials of degree <= 3 in three variables: 6! / (3! 3!)


def draw_released_view(
    recipe: ReleasedRecipe, shape: Sequence[int], generator: torch.Generator, spacing: Triple | None = None
) -> ReleasedViewParameters:
    """Draw one view: one transform of the recipe's list, each equally likely, with TorchIO's default ranges.

    Args:
        recipe: Sizes and transforms.
        shape: (F, H, W) or (C, F, H, W) of the volume.
        generator: The only source of chance.
        spacing: Size of a voxel along (F, H, W), mm; None where unknown, which counts as 1 mm.
    """
    name = recipe.transforms[int(torch.randint(len(recipe.transforms), (), generator=generator))]
    channels = shape[0] if len(shape) == 4 else 1
    return replace(plain_released_view(recipe, shape, spacing), transform=_DRAW[name](generator, channels))


def plain_released_view(
    recipe: ReleasedRecipe, shape: Sequence[int], spacing: Triple | None = None
) -> ReleasedViewParameters:
    """The view without chance: the middle of the volume, cropped or padded with black to the recipe's size."""
    first, kept, before = [], [], []
    for length, wanted in zip(shape[-3:], (recipe.num_slices, *recipe.size), strict=True):
        # Of an odd number of voxels too many or too few, TorchIO cuts or adds the odd one in front.
        first.append(math.ceil(max(length - wanted, 0) / 2))
        kept.append(min(length, wanted))
        before.append(math.ceil(max(wanted - length, 0) / 2))
    return ReleasedViewParameters(
        size=recipe.size,
        num_slices=recipe.num_slices,
        first=(first[0], first[1], first[2]),
        kept=(kept[0], kept[1], kept[2]),
        before=(before[0], before[1], before[2]),
        spacing=spacing or (1.0, 1.0, 1.0),
    )


def _flip(generator: torch.Generator, channels: int) -> Flip:
    return Flip(axes=(0,) if _uniform(0, 1, generator) < 0.5 else ())


def _affine(generator: torch.Generator, channels: int) -> Affine:
    return Affine(scales=_triple(0.9, 1.1, generator), degrees=_triple(-10, 10, generator))


def _anisotropy(generator: torch.Generator, channels: int) -> Anisotropy:
    axis = int(torch.randint(3, (), generator=generator))
    return Anisotropy(axis, factor=_uniform(1.5, 5, generator))


def _noise(generator: torch.Generator, channels: int) -> Noise:
    deviation = _uniform(0, 0.25, generator)
    return Noise(deviation, seed=int(torch.randint(2**31, (), generator=generator)))


def _blur(generator: torch.Generator, channels: int) -> Blur:
    return Blur(deviations=_triple(0, 2, generator))


def _bias_field(generator: torch.Generator, channels: int) -> BiasField:
    return BiasField(tuple(_uniform(-0.5, 0.5, generator) for _ in range(BIAS_COEFFICIENTS)))


def _gamma(generator: torch.Generator, channels: int) -> Gamma:
    return Gamma(tuple(math.exp(_uniform(-0.3, 0.3, generator)) for _ in range(channels)))


_DRAW: dict[str, Callable[[torch.Generator, int], Transform]] = {
    "flip": _flip,
    "affine": _affine,
    "anisotropy": _anisotropy,
    "noise": _noise,
    "blur": _blur,
    "bias_field": _bias_field,
    "gamma": _gamma,
}


def _triple(low: float, high: float, generator: torch.Generator) -> Triple:
    return _uniform(low, high, generator), _uniform(low, high, generator), _uniform(low, high, generator)


def _uniform(low: float, high: float, generator: torch.Generator) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator, dtype=torch.float64))
