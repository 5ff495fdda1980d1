"""Swapped prediction: one view's code is predicted from another view's scores (Eq. 3-4; for volumes, Eq. 11)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def swapped_prediction_loss(
    scores: Tensor, codes: Tensor, assign_views: Sequence[int], temperature: float = 0.1
) -> Tensor:
    """Cross-entropy between each code and the predictions of every *other* view (Eq. 3-4).

    Eq. 11 prints each code with its own view; Eq. 3, which it generalises to volumes, and the released code swap them,
    and so does this.

    Args:
        scores: Products of embeddings and prototypes of all views, ``(V, B, K)``.
        codes: Codes of the A views they were computed for, ``(A, B, K)``; detached here.
        assign_views: The view that each code belongs to, A indices into V.
        temperature: tau of Eq. 4.

    Returns:
        Scalar: mean over the samples and over all pairs of a code and another view.

    Raises:
        ValueError: If there are fewer than two views, shapes or indices do not fit, or ``temperature`` is not positive.
    """
    if temperature <= 0:
        raise ValueError(f"temperature must be positive, got {temperature}; SwAV's is 0.1")
    if scores.ndim != 3 or scores.shape[0] < 2:
        raise ValueError(f"scores must be (V, B, K) with at least 2 views, got {tuple(scores.shape)}")
    if codes.shape != (len(assign_views), *scores.shape[1:]):
        raise ValueError(
            f"codes must be {(len(assign_views), *scores.shape[1:])}, one per view of {list(assign_views)}, "
            f"got {tuple(codes.shape)}"
        )
    unknown = [view for view in assign_views if not 0 <= view < scores.shape[0]]
    if unknown or not assign_views:
        raise ValueError(f"assign_views must name views from 0 to {scores.shape[0] - 1}, got {list(assign_views)}")
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    log_predictions = (scores / temperature).log_softmax(dim=-1)
    # Multiplied out rather than einsum, which autocast would run in half precision. (A, 1, B, K) * (V, B, K)
    terms = -(codes.detach().unsqueeze(1) * log_predictions).sum(dim=-1).mean(dim=-1)  # (A, V)
    own = torch.tensor(list(assign_views), device=scores.device)[:, None]
    other = own != torch.arange(scores.shape[0], device=scores.device)  # (A, V)
    return terms[other].mean()
