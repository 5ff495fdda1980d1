"""The released transforms that move voxels: functions of a volume `(C, F, H, W)`."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vissl_jointssl.views.along_axis import along_axis, coarse_matrix
from vissl_jointssl.views.released.parameters import Affine, Anisotropy, Flip, Triple
from vissl_jointssl.views.released.trilinear import sample_trilinear


def flip(volume: Tensor, parameters: Flip) -> Tensor:
    """Reverse axes."""
    return volume.flip([axis + 1 for axis in parameters.axes])


def affine(volume: Tensor, parameters: Affine, spacing: Triple) -> Tensor:
    """Rotate and scale about the middle in mm, trilinear; what comes from outside is the channel's minimum."""
    # In mm about the middle, the input point of an output point: back through the scaling, then the rotation.
    inverse = _rotation(parameters.degrees).T @ torch.diag(1 / torch.tensor(parameters.scales, dtype=torch.float64))
    sizes = torch.tensor(spacing, dtype=torch.float64)
    return sample_trilinear(volume, inverse * sizes[None, :] / sizes[:, None])


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
    """Coarse samples of one axis, nearest voxel, interpolated back linearly; see `coarse_matrix`."""
    matrix = coarse_matrix(volume.shape[parameters.axis + 1], parameters.factor)
    return along_axis(volume, matrix, parameters.axis - 3)
