"""Gaussian noise from a seed, for both families."""

from __future__ import annotations

import torch
from torch import Tensor


def fill_with_noise(into: Tensor, seed: int, *, same: bool = True) -> Tensor:
    """Fill a tensor with noise of deviation 1.

    Args:
        into: Of any shape, type and device.
        seed: Of the noise.
        same: Draw on the CPU and in float32, so that every device gets the same noise. Else the device's own generator
            draws: from the same seed other numbers than the CPU's, without waiting for the CPU, which takes longer for
            this than a GPU for all the rest of a view.

    Returns:
        The same memory.
    """
    device = torch.device("cpu") if same else into.device
    generator = torch.Generator(device).manual_seed(seed)
    if into.device == device and into.dtype == torch.float32:
        return into.normal_(generator=generator)
    return into.copy_(torch.randn(into.shape, generator=generator, device=device))
