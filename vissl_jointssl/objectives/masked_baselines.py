"""What stage 2 must beat: two guesses at a hidden slice's embedding that need no learning.

The distance is `masked_embedding_loss`'s (Eq. 15), so the numbers stand beside the loss. The paper reports no such
baseline. Below the mean embedding, predictions use what they see; below the average of the neighbours, they use more
than that slices change slowly.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vissl_jointssl.objectives.masked_embedding import masked_embedding_loss


def mean_embedding_distance(target: Tensor, mask: Tensor, valid: Tensor) -> Tensor:
    """Distance from the hidden slices to the mean over all visible slices of the batch.

    Args:
        target: Multi-level embeddings, ``(B, F, E)``.
        mask: True where a slice was hidden, ``(B, F)``.
        valid: True where a slice exists, ``(B, F)``.

    Returns:
        Scalar: averaged over every hidden slice of the batch, in float32 or better.

    Raises:
        ValueError: If shapes differ, a hidden slice does not exist, or a volume hides no or every slice.
    """
    visible = _visible(target, mask, valid)
    exact = target.to(torch.promote_types(target.dtype, torch.float32))
    return masked_embedding_loss(exact[visible].mean(dim=0).expand_as(exact), exact, mask)


def neighbour_distance(target: Tensor, mask: Tensor, valid: Tensor) -> Tensor:
    """Distance from the hidden slices to the average of their neighbours: the nearest visible slice on either side.

    At the border of a volume it is the one neighbour that exists. Other arguments, result and errors as in
    `mean_embedding_distance`.
    """
    visible = _visible(target, mask, valid)
    exact = target.to(torch.promote_types(target.dtype, torch.float32))
    slices = target.shape[1]
    places = torch.arange(slices, device=target.device).expand_as(mask)
    before = torch.where(visible, places, -1).cummax(dim=1).values  # (B, F), -1: none
    after = torch.where(visible, places, slices).flip(1).cummin(dim=1).values.flip(1)  # (B, F), F: none
    before, after = torch.where(before < 0, after, before), torch.where(after == slices, before, after)
    return masked_embedding_loss((_take(exact, before) + _take(exact, after)) / 2, exact, mask)


def _visible(target: Tensor, mask: Tensor, valid: Tensor) -> Tensor:
    """Where a slice exists and is not hidden, ``(B, F)``, after checking that each volume has one."""
    if mask.shape != target.shape[:-1] or valid.shape != mask.shape:
        raise ValueError(
            f"target {tuple(target.shape)}, mask {tuple(mask.shape)} and valid {tuple(valid.shape)} must be "
            "(B, F, E), (B, F) and (B, F)"
        )
    if (mask & ~valid).any():
        volumes = (mask & ~valid).any(dim=1).nonzero().flatten().tolist()
        raise ValueError(f"volumes {volumes} of the batch hide padding; draw the mask from the valid slices")
    visible = valid & ~mask
    if not visible.any(dim=1).all():
        blind = (~visible.any(dim=1)).nonzero().flatten().tolist()
        raise ValueError(f"volumes {blind} of the batch have no visible slice to guess from; lower mask_ratio")
    return visible


def _take(embeddings: Tensor, places: Tensor) -> Tensor:
    """Rows of each volume, ``(B, F, E)`` at ``(B, F)``."""
    return embeddings.gather(1, places.unsqueeze(-1).expand_as(embeddings))
