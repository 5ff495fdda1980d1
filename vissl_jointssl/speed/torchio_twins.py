"""The transforms of TorchIO with the numbers of ours, so that both do the same work."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vissl_jointssl.views.released.parameters import (
    Affine,
    Anisotropy,
    BiasField,
    Blur,
    Flip,
    Gamma,
    Noise,
    Transform,
)


def torchio_twin(transform: Transform) -> Callable[[Any], Any]:
    """TorchIO's transform, from images to images."""
    import torchio

    match transform:
        case Flip(axes):
            return torchio.Flip(axes)
        case Affine(scales, degrees):
            return torchio.Affine(scales=scales, degrees=degrees, translation=(0, 0, 0))
        case Anisotropy(axis, factor):
            return torchio.RandomAnisotropy(axes=(axis,), downsampling=(factor, factor))
        case Noise(deviation, seed):
            return torchio.Noise(mean=0, std=deviation, seed=seed)
        case Blur(deviations):
            return torchio.Blur(std=deviations)
        case BiasField(coefficients):
            return torchio.transforms.BiasField(coefficients=list(coefficients), order=3)
        case Gamma(exponents):
            return torchio.Gamma(gamma=list(exponents))
