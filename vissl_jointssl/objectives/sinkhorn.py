"""Balanced soft assignments by Sinkhorn-Knopp, in log space and over all ranks (Eq. 2)."""

from __future__ import annotations

import torch
from torch import Tensor, distributed

from vissl_jointssl.objectives.over_ranks import over_ranks


def sinkhorn(scores: Tensor, epsilon: float = 0.05, iterations: int = 3) -> Tensor:
    """Assign samples to prototypes so that every prototype gets the same share of the batch (Eq. 2).

    Alternately every prototype's mass and every sample's mass are normalised; the last step is the samples'. It works
    with logarithms, in float32 or better whatever autocast says: exp(1 / 0.05) = 4.9e8 is beyond half precision. When
    torch.distributed runs on several ranks, prototypes are balanced over the samples of all of them.

    Args:
        scores: Products of embeddings and prototypes, ``(B, K)``; any finite values.
        epsilon: Weight of the entropy; smaller gives harder codes.
        iterations: Rounds.

    Returns:
        ``codes`` without gradient, ``(B, K)``, float64 for float64 scores and float32 otherwise; rows sum to one.

    Raises:
        ValueError: If ``epsilon`` or ``iterations`` is not positive.
    """
    if epsilon <= 0:
        raise ValueError(f"epsilon must be positive, got {epsilon}; SwAV's is 0.05")
    if iterations < 1:
        raise ValueError(f"iterations must be at least 1, got {iterations}; SwAV's is 3")
    with torch.no_grad():
        scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
        highest = over_ranks(scores.max(), distributed.ReduceOp.MAX)
        # An eighth of the range leaves room for the sums below; exp() of it is zero all the same.
        plan = ((scores - highest) / epsilon).clamp(min=torch.finfo(scores.dtype).min / 8)
        for _ in range(iterations):
            plan = plan - _log_sum_over_samples(plan)
            plan = plan - plan.logsumexp(dim=1, keepdim=True)
        return plan.exp()


def _log_sum_over_samples(plan: Tensor) -> Tensor:
    """Logarithm of each prototype's mass over the samples of all ranks, ``(B, K)`` -> ``(K,)``."""
    highest = over_ranks(plan.amax(dim=0), distributed.ReduceOp.MAX)
    return over_ranks((plan - highest).exp().sum(dim=0), distributed.ReduceOp.SUM).log() + highest
