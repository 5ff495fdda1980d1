"""Linear maps of one axis, such as a blur: one matrix product is faster than a convolution of so few taps."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def along_axis(voxels: Tensor, matrix: Tensor, axis: int) -> Tensor:
    """Map one axis of `voxels` by a matrix.

    Args:
        voxels: Of at least three axes.
        matrix: (new length, length of the axis); converted to the voxels' type and device.
        axis: -1, -2 or -3.

    Returns:
        The voxels with that axis of the new length.
    """
    matrix = matrix.to(voxels)
    if axis == -1:
        return voxels @ matrix.T
    if axis == -2:
        return matrix @ voxels
    return (matrix @ voxels.flatten(-2)).unflatten(-1, voxels.shape[-2:])


def gaussian_matrix(length: int, deviation: float, radius: int, *, mirrored: bool) -> Tensor:
    """The Gaussian blur of an axis: however far it reaches, what lies beyond the edges is in its entries.

    Args:
        length: Of the axis.
        deviation: In voxels; anything for a radius of 0, which is no blur.
        radius: Voxels to either side at which the Gaussian is cut off.
        mirrored: Whether the axis continues as its mirror image, else as its outer voxel.

    Returns:
        `(length, length)`, float64.
    """
    steps = torch.arange(-radius, radius + 1)
    kernel = torch.exp(-0.5 * (steps.double() / deviation) ** 2) if radius else torch.ones(1, dtype=torch.float64)
    kernel = kernel / kernel.sum()
    sources = torch.arange(length)[:, None] + steps  # (length, 2 * radius + 1)
    if mirrored:
        sources = sources % (2 * length)  # mirrored twice is where it was
        sources = torch.where(sources < length, sources, 2 * length - 1 - sources)
    else:
        sources = sources.clamp(0, length - 1)
    matrix = torch.zeros(length, length, dtype=torch.float64)
    return matrix.scatter_add(1, sources, kernel.expand(length, -1))


def slab_matrix(length: int, count: int, start: float, step: float) -> Tensor:
    """`count` slices at `start + i * step` of `length` slices.

    Linear between two slices; where the wanted slices are farther apart than the given ones, a weighted mean of all
    that lie nearer than `step`, as a thick slice is of what it covers, and against aliasing.

    Returns:
        `(count, length)`, float64.
    """
    places = start + step * torch.arange(count, dtype=torch.float64)
    distances = (places[:, None] - torch.arange(length)).abs() / max(1.0, step)
    weights = (1 - distances).clamp(min=0)
    return weights / weights.sum(dim=1, keepdim=True)


def coarse_matrix(length: int, factor: float) -> Tensor:
    """Every `factor`-th sample of an axis, nearest voxel, and back linearly; zero beyond half a coarse sample.

    The coarse grid shares the axis' middle and has as many samples as fit, at least one.

    Returns:
        `(length, length)`, float64.
    """
    coarse = max(1, math.floor(length / factor))
    samples = (length - 1) / 2 + (torch.arange(coarse, dtype=torch.float64) - (coarse - 1) / 2) * factor
    nearest = (samples + 0.5).floor().long().clamp(0, length - 1)
    # Where each voxel lies on the coarse grid.
    places = (torch.arange(length, dtype=torch.float64) - (length - 1) / 2) / factor + (coarse - 1) / 2
    within = places.clamp(0, coarse - 1)
    left = within.floor().long()
    share = (within - left)[:, None]
    right = (left + 1).clamp(max=coarse - 1)
    matrix = torch.zeros(length, length, dtype=torch.float64)
    matrix.scatter_add_(1, nearest[left][:, None], 1 - share).scatter_add_(1, nearest[right][:, None], share)
    reached = (places >= -0.5) & (places <= coarse - 0.5)
    return matrix * reached[:, None]
