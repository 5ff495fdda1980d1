"""The released transforms that change grey values: functions of a volume `(C, F, H, W)`."""

from __future__ import annotations

import torch
from torch import Tensor

from vissl_jointssl.views.along_axis import along_axis, gaussian_matrix
from vissl_jointssl.views.noise import fill_with_noise
from vissl_jointssl.views.released.parameters import BiasField, Blur, Gamma, Noise, Triple

BIAS_ORDER = 3
BLUR_REACH = 4.0  # deviations at which scipy.ndimage, and so TorchIO, cuts the Gaussian off


def noise(volume: Tensor, parameters: Noise, *, same_noise: bool = True) -> Tensor:
    """Add Gaussian noise, see `fill_with_noise`."""
    drawn = torch.empty_like(volume, memory_format=torch.contiguous_format)
    return fill_with_noise(drawn, parameters.seed, same=same_noise).mul_(parameters.deviation).add_(volume)


def blur(volume: Tensor, parameters: Blur, spacing: Triple) -> Tensor:
    """Gaussian blur along each axis; the volume continues as its mirror image."""
    for axis, deviation, size in zip((-3, -2, -1), parameters.deviations, spacing, strict=True):
        radius = int(BLUR_REACH * deviation / size + 0.5)
        if radius:
            weights = gaussian_matrix(volume.shape[axis], deviation / size, radius, mirrored=True)
            volume = along_axis(volume, weights, axis)
    return volume


def bias_field(volume: Tensor, parameters: BiasField) -> Tensor:
    """Multiply every channel by the same smooth field."""
    # Powers 0 to 3 of each axis's places, -1 to 1 between the middles of its outer voxels; 0 for an axis of one voxel.
    powers = []
    for length in volume.shape[1:]:
        half = max((length - 1) / 2, 0.5)
        places = (torch.arange(length, dtype=torch.float64) - (length - 1) / 2) / half
        powers.append(places[:, None] ** torch.arange(BIAS_ORDER + 1))
    weights = torch.zeros((BIAS_ORDER + 1,) * 3, dtype=torch.float64)
    coefficients = iter(parameters.coefficients)
    for i in range(BIAS_ORDER + 1):
        for j in range(BIAS_ORDER + 1 - i):
            for k in range(BIAS_ORDER + 1 - i - j):
                weights[i, j, k] = next(coefficients)
    exponent = weights.to(volume)
    for of_axis in reversed(powers):  # one axis after the other: (i, j, k) -> (W, i, j) -> (H, W, i) -> (F, H, W)
        exponent = torch.tensordot(of_axis.to(volume), exponent, dims=([1], [-1]))
    return exponent.exp_() * volume


def gamma(volume: Tensor, parameters: Gamma) -> Tensor:
    """Raise every channel's magnitudes to its exponent."""
    exponents = torch.tensor(parameters.exponents, dtype=volume.dtype, device=volume.device)[:, None, None, None]
    raised = volume.abs().log_().mul_(exponents).exp_()  # as a power, at a quarter of its price
    return raised.copysign_(volume)
