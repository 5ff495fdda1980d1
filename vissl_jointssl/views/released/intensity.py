"""The released transforms that change grey values: functions of a volume `(C, F, H, W)`."""

from __future__ import annotations

import torch
from torch import Tensor

from vissl_jointssl.views.released.parameters import BiasField, Blur, Gamma, Noise, Triple

BIAS_ORDER = 3
BLUR_REACH = 4.0  # deviations at which scipy.ndimage, and so TorchIO, cuts the Gaussian off


def noise(volume: Tensor, parameters: Noise) -> Tensor:
    """Add Gaussian noise."""
    generator = torch.Generator().manual_seed(parameters.seed)
    # On the CPU and in float32 whatever the volume's device, so that a replay there gives the same noise.
    return volume + parameters.deviation * torch.randn(volume.shape, generator=generator).to(volume)


def blur(volume: Tensor, parameters: Blur, spacing: Triple) -> Tensor:
    """Gaussian blur along each axis; the volume continues as its mirror image."""
    for axis, (deviation, size) in enumerate(zip(parameters.deviations, spacing, strict=True), start=1):
        weights = _blur_matrix(volume.shape[axis], deviation / size).to(volume)
        volume = torch.tensordot(volume, weights, dims=([axis], [1])).movedim(-1, axis)
    return volume


def _blur_matrix(length: int, deviation: float) -> Tensor:
    """The blur of an axis as a matrix `(length, length)`: however far it reaches, mirroring is in its entries."""
    radius = int(BLUR_REACH * deviation + 0.5)
    steps = torch.arange(-radius, radius + 1)
    kernel = torch.exp(-0.5 * (steps.double() / deviation) ** 2) if radius else torch.ones(1, dtype=torch.float64)
    kernel = kernel / kernel.sum()
    sources = (torch.arange(length)[:, None] + steps) % (2 * length)  # mirrored twice is where it was
    sources = torch.where(sources < length, sources, 2 * length - 1 - sources)  # (length, 2 * radius + 1)
    matrix = torch.zeros(length, length, dtype=torch.float64)
    return matrix.scatter_add(1, sources, kernel.expand(length, -1))


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
    return volume * exponent.exp()


def gamma(volume: Tensor, parameters: Gamma) -> Tensor:
    """Raise every channel's magnitudes to its exponent."""
    exponents = torch.tensor(parameters.exponents, dtype=volume.dtype, device=volume.device)[:, None, None, None]
    return volume.sign() * volume.abs() ** exponents
