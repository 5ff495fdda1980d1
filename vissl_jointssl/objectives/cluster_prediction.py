"""Cluster prediction: each view must be recognised as a member of its sample's k-means cluster (DeepCluster-v2)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy


def cluster_scores(embeddings: Tensor, centroids: Tensor, temperature: float = 0.1) -> Tensor:
    """Cosines by temperature, in float32 or better whatever autocast says; ``(V*B, D), (K, D) -> (V*B, K)``.

    Args:
        embeddings: Unit vectors.
        centroids: Unit vectors; detached here, because they are fixed during an epoch.
        temperature: tau of Eq. 4.

    Raises:
        ValueError: If `temperature` is not positive.
    """
    if temperature <= 0:
        raise ValueError(f"temperature must be positive, got {temperature}; DeepCluster-v2's is 0.1")
    exact = torch.promote_types(embeddings.dtype, torch.float32)
    with torch.autocast(embeddings.device.type, enabled=False):
        return embeddings.to(exact) @ centroids.detach().to(exact).T / temperature


def cluster_prediction_loss(scores: Tensor, assignments: Tensor) -> Tensor:
    """Cross-entropy of the assigned clusters: the hard form of Eq. 11, with one code for all views of a sample.

    Args:
        scores: Of `cluster_scores`, ``(V*B, K)``.
        assignments: Cluster of each row's sample, ``(V*B,)``.

    Returns:
        Scalar: mean over views and samples.

    Raises:
        ValueError: If an embedding has no assignment, or the other way round.
    """
    if scores.shape[:1] != assignments.shape:
        raise ValueError(
            f"scores {tuple(scores.shape)} and assignments {tuple(assignments.shape)} must be (V*B, K) and (V*B,)"
        )
    return cross_entropy(scores, assignments)
