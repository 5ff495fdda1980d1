"""Masked embedding prediction: how far the predicted hidden slices are from the true ones (Eq. 15)."""

from __future__ import annotations

import torch
from torch import Tensor

from vissl_jointssl.objectives.over_ranks import over_ranks, rank_and_world


def masked_embedding_loss(predicted: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Distance between predicted and true embeddings of the hidden slices (Eq. 15).

    A visible slice can be copied straight through, so scoring it would reward the identity.

    Args:
        predicted: Output of ``f_decode``, ``(B, F, E)``.
        target: Frozen multi-level embeddings from ``f_intra``, ``(B, F, E)``; detached here.
        mask: True where a slice was hidden, ``(B, F)``.

    Returns:
        Scalar: L2 distance averaged over every hidden slice of the batch, in float32 or better.

    Raises:
        ValueError: If the shapes differ, or if a volume hides no slice, so that its loss is undefined.
    """
    if predicted.shape != target.shape or mask.shape != target.shape[:-1]:
        raise ValueError(
            f"predicted {tuple(predicted.shape)}, target {tuple(target.shape)} and mask {tuple(mask.shape)} must be "
            "(B, F, E), (B, F, E) and (B, F); does f_decode predict the width that f_intra gives?"
        )
    if not mask.any(dim=1).all():
        empty = (~mask.any(dim=1)).nonzero().flatten().tolist()
        raise ValueError(f"volumes {empty} of the batch hide no slice; raise mask_ratio or check their lengths")
    exact = torch.promote_types(predicted.dtype, torch.float32)
    difference = predicted[mask].to(exact) - target.detach()[mask].to(exact)  # (hidden slices, E)
    return torch.linalg.vector_norm(difference, dim=-1).mean()


def weight_of_rank(mask: Tensor) -> Tensor:
    """Factor for this rank's loss that makes the mean over ranks the mean over hidden slices.

    Ranks may hide different numbers of slices, because volumes differ in length; DDP averages gradients over ranks as
    if they hid the same. Every rank must call this, as it sums over them.

    Args:
        mask: True where a slice of this rank was hidden, ``(B, F)``.

    Returns:
        Scalar, float64: hidden slices here times ranks, by hidden slices on all ranks; 1 on one rank.
    """
    here = mask.sum().double()
    return here * rank_and_world()[1] / over_ranks(here)
