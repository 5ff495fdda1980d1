"""Choosing the slices to hide in stage 2, and hiding them (Eq. 13)."""

from __future__ import annotations

import torch
from torch import Tensor

from vissl_jointssl.models.valid_slices import valid_lengths


def draw_mask(valid: Tensor, mask_ratio: float, generator: torch.Generator | None = None) -> Tensor:
    """Draw the slices to hide, uniformly and without replacement, in each volume on its own.

    Of n slices, M = max(1, round(mask_ratio * n)) are hidden, but never all: with no slice in sight there is nothing
    to predict from. Padding is never hidden.

    Args:
        valid: True where a slice exists, ``(B, F)``, padding at the end.
        mask_ratio: Share of the slices to hide, above 0 and below 1; the paper's is 0.1.
        generator: Source of randomness; the global one by default.

    Returns:
        ``mask``, True where a slice is hidden, ``(B, F)``.

    Raises:
        ValueError: If ``mask_ratio`` is out of range, or if a volume has fewer than two slices.
    """
    if not 0.0 < mask_ratio < 1.0:
        raise ValueError(f"mask_ratio must lie between 0 and 1, got {mask_ratio}; the paper hides 0.1 of the slices")
    lengths = valid_lengths(valid)
    if (lengths < 2).any():
        short = (lengths < 2).nonzero().flatten().tolist()
        raise ValueError(
            f"volumes {short} of the batch have fewer than 2 slices, so none can be hidden while another stays; "
            "drop them or crop longer volumes"
        )
    hidden = (lengths.double() * mask_ratio).round().long().clamp(min=1).minimum(lengths - 1)  # (B,)
    device = valid.device if generator is None else generator.device
    lot = torch.rand(valid.shape, generator=generator, device=device).to(valid.device)
    rank = lot.masked_fill(~valid, 2.0).argsort(dim=1).argsort(dim=1)  # 2 > any lot: padding comes last
    return rank < hidden[:, None]


def hide_slices(embeddings: Tensor, mask: Tensor, mask_token: Tensor) -> Tensor:
    """Put the learned [MASK] vector in place of the hidden slices (Eq. 13).

    Args:
        embeddings: Slices projected to f_inter's width, before position codes, ``(B, F, D)``.
        mask: True where a slice is hidden, ``(B, F)``.
        mask_token: The learned vector, ``(D,)``.

    Returns:
        ``(B, F, D)`` in the type of ``embeddings``.

    Raises:
        ValueError: If the shapes do not fit together.
    """
    if mask.shape != embeddings.shape[:-1] or mask_token.shape != embeddings.shape[-1:]:
        raise ValueError(
            f"embeddings {tuple(embeddings.shape)} need a mask {tuple(embeddings.shape[:-1])} and a mask_token "
            f"{tuple(embeddings.shape[-1:])}, got {tuple(mask.shape)} and {tuple(mask_token.shape)}"
        )
    return torch.where(mask.unsqueeze(-1), mask_token.to(embeddings.dtype), embeddings)
