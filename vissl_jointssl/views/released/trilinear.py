"""Trilinear samples of a volume on a lattice that an affine map has moved."""

from __future__ import annotations

import torch
from torch import Tensor

SLICES_AT_ONCE = 4  # on a CPU: what is worked on at a time then stays in its cache


def sample_trilinear(volume: Tensor, matrix: Tensor) -> Tensor:
    """The volume seen through a linear map about its middle.

    PyTorch's own `grid_sample` of volumes takes four times as long on a CPU, half of it for its grid.

    Args:
        volume: `(C, F, H, W)`.
        matrix: `(3, 3)`, float64: of an output voxel's place from the middle, in voxels along (F, H, W), that of the
            input. Between the middles of the outer voxels and their edges, the outer voxels continue.

    Returns:
        The same shape; each channel's minimum where the input ends before.
    """
    result = torch.empty_like(volume, memory_format=torch.contiguous_format)
    lowest = volume.amin(dim=(1, 2, 3))
    flat = volume.reshape(len(volume), -1)
    count = volume.shape[1] if volume.is_cuda else SLICES_AT_ONCE
    for start in range(0, volume.shape[1], count):
        part = result[:, start : start + count]
        corner, shares, inside = _places(volume, matrix, range(start, start + part.shape[1]))
        for channel, minimum, into in zip(flat, lowest, part, strict=True):
            sampled = _interpolate(channel, volume.shape, corner, shares).view(into.shape)
            torch.where(inside, sampled, minimum, out=into)
    return result


def _places(volume: Tensor, matrix: Tensor, slices: range) -> tuple[Tensor, list[Tensor], Tensor]:
    """Of the output voxels of some slices: the input voxel before each, in a flat channel; how far beyond it; inside.

    Returns:
        `(n,)` int32, three of `(n,)`, and `(slices, H, W)` bool.
    """
    f, h, w = (
        (torch.arange(length, dtype=torch.float64) - (length - 1) / 2).to(volume.device) for length in volume.shape[1:]
    )
    f = f[slices.start : slices.stop]
    shares: list[Tensor] = []
    corner = farthest = None
    for row, length in zip(matrix.tolist(), volume.shape[1:], strict=True):
        of_rows = row[0] * f[:, None] + row[1] * h  # (slices, H), float64 up to here
        place = of_rows.to(volume.dtype)[..., None] + (row[2] * w).to(volume.dtype)  # (slices, H, W), from the middle
        distance = place.abs().mul_(2 / length)  # 1 at the edge
        farthest = distance if farthest is None else torch.maximum(farthest, distance, out=farthest)
        place.add_((length - 1) / 2).clamp_(0, length - 1)
        before = place.floor().clamp_(max=max(length - 2, 0))  # so that there is one behind it, too
        shares.append(place.sub_(before).flatten())
        before = before.to(torch.int32)
        corner = before if corner is None else corner.mul_(length).add_(before)
    assert corner is not None  # a volume has three axes
    assert farthest is not None
    return corner.flatten(), shares, farthest <= 1


def _interpolate(channel: Tensor, shape: torch.Size, corner: Tensor, shares: list[Tensor]) -> Tensor:
    """From the eight voxels about each place, `(n,)`."""
    _, slices, height, width = shape
    steps = (height * width * (slices > 1), width * (height > 1), int(width > 1))
    values = [
        channel[f * steps[0] + h * steps[1] + w * steps[2] :].index_select(0, corner)
        for f in (0, 1)
        for h in (0, 1)
        for w in (0, 1)
    ]
    for share in reversed(shares):
        values = [low.lerp_(high, share) for low, high in zip(values[::2], values[1::2], strict=True)]
    return values[0]
