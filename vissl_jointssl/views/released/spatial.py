"""The released transforms that move voxels: functions of a volume `(C, F, H, W)`."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from vissl_jointssl.views.released.parameters import Affine, Anisotropy, Flip, Triple


def flip(volume: Tensor, parameters: Flip) -> Tensor:
    """Reverse axes."""
    return volume.flip([axis + 1 for axis in parameters.axes])


def affine(volume: Tensor, parameters: Affine, spacing: Triple) -> Tensor:
    """Rotate and scale about the middle in mm, trilinear; what comes from outside is the channel's minimum."""
    shape = volume.shape[1:]
    # In mm about the middle, the input point of an output point: back through the scaling, then the rotation.
    inverse = _rotation(parameters.degrees).T @ torch.diag(1 / torch.tensor(parameters.scales, dtype=torch.float64))
    # From mm to [-1, 1] between the outer edges of the volume.
    half_extent = torch.tensor([side * size / 2 for side, size in zip(shape, spacing, strict=True)]).double()
    normalised = inverse * half_extent[None, :] / half_extent[:, None]
    # grid_sample names points (x, y, z) = (W, H, F).
    theta = torch.cat([normalised.flip(0, 1), torch.zeros(3, 1, dtype=torch.float64)], dim=1)
    grid = functional.affine_grid(theta[None].to(volume), [1, 1, *shape], align_corners=False)
    moved = functional.grid_sample(volume[None], grid, mode="bilinear", padding_mode="border", align_corners=False)[0]
    inside = (grid[0].abs() <= 1).all(dim=-1)  # (F, H, W)
    return torch.where(inside, moved, volume.amin(dim=(1, 2, 3), keepdim=True))


def _rotation(degrees: Triple) -> Tensor:
    """Rotation matrix over (F, H, W): about H first, then about F, then about W, right-handed (ITK's Euler angles)."""
    about_f, about_h, about_w = (math.radians(angle) for angle in degrees)
    cos_f, sin_f, cos_h, sin_h = math.cos(about_f), math.sin(about_f), math.cos(about_h), math.sin(about_h)
    cos_w, sin_w = math.cos(about_w), math.sin(about_w)
    f = torch.tensor([[1, 0, 0], [0, cos_f, -sin_f], [0, sin_f, cos_f]], dtype=torch.float64)
    h = torch.tensor([[cos_h, 0, sin_h], [0, 1, 0], [-sin_h, 0, cos_h]], dtype=torch.float64)
    w = torch.tensor([[cos_w, -sin_w, 0], [sin_w, cos_w, 0], [0, 0, 1]], dtype=torch.float64)
    return w @ f @ h


def anisotropy(volume: Tensor, parameters: Anisotropy) -> Tensor:
    """Coarse samples of one axis, nearest voxel, interpolated back linearly; zero beyond half a coarse sample.

    The coarse grid shares the volume's middle and has as many samples as fit into the volume.
    """
    axis, factor = parameters.axis + 1, parameters.factor
    length = volume.shape[axis]
    coarse = max(1, math.floor(length / factor))
    samples = (length - 1) / 2 + (torch.arange(coarse, dtype=torch.float64) - (coarse - 1) / 2) * factor
    nearest = (samples + 0.5).floor().long().clamp(0, length - 1)
    # Where each voxel lies on the coarse grid.
    places = (torch.arange(length, dtype=torch.float64) - (length - 1) / 2) / factor + (coarse - 1) / 2
    within = places.clamp(0, coarse - 1)
    left = within.floor().long()
    right = (left + 1).clamp(max=coarse - 1)
    along = [-1 if dimension == axis else 1 for dimension in range(volume.ndim)]
    share = (within - left).to(volume).view(along)
    low = volume.index_select(axis, nearest[left].to(volume.device))
    high = volume.index_select(axis, nearest[right].to(volume.device))
    reached = ((places >= -0.5) & (places <= coarse - 0.5)).to(volume.device).view(along)
    return torch.where(reached, torch.lerp(low, high, share), 0.0)
