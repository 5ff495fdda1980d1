"""Fixed sinusoidal position codes, defined for any number of slices."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def position_code(
    slices: int, width: int, device: torch.device | None = None, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Code the slice index by sines and cosines of wavelengths from 2 pi to 2 pi * 10,000 slices (Vaswani et al. 2017).

    Nothing is learned and nothing is stored, so a checkpoint trained on 64 slices reads 256. The first half of the
    code holds the sines, the second the cosines.

    Args:
        slices: F.
        width: D, even.
        device: Where to make the code.
        dtype: Type of the code; half precision is rounded only at the end.

    Returns:
        ``(F, D)``, entries in [-1, 1].

    Raises:
        ValueError: If ``width`` is odd.
    """
    if width % 2:
        raise ValueError(f"a position code has as many sines as cosines, so its width must be even, got {width}")
    exact = torch.promote_types(dtype, torch.float32)
    rates = torch.exp(torch.arange(0, width, 2, device=device, dtype=exact) * (-math.log(10_000.0) / width))
    angles = torch.arange(slices, device=device, dtype=exact)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1).to(dtype)
