"""Cluster prediction: a slow loop, its gradient, and half precision."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn.functional import normalize

from vissl_jointssl.objectives.cluster_prediction import cluster_prediction_loss, cluster_scores


def unit(rows: int, width: int = 4, seed: int = 0) -> torch.Tensor:
    """Random unit vectors in float64."""
    generator = torch.Generator().manual_seed(seed)
    return normalize(torch.randn(rows, width, generator=generator, dtype=torch.float64), dim=1)


def test_it_equals_a_slow_loop() -> None:
    embeddings, centroids, assigned = unit(6), unit(3, seed=1), [2, 0, 1, 1, 0, 2]
    total = 0.0
    for row, cluster in zip(embeddings.tolist(), assigned, strict=True):
        scores = [sum(a * b for a, b in zip(row, centre, strict=True)) / 0.1 for centre in centroids.tolist()]
        total += math.log(sum(math.exp(score) for score in scores)) - scores[cluster]
    loss = cluster_prediction_loss(cluster_scores(embeddings, centroids, 0.1), torch.tensor(assigned))
    assert loss.item() == pytest.approx(total / 6, abs=1e-12)


def test_the_centroids_get_no_gradient() -> None:
    embeddings, centroids = unit(6).requires_grad_(), unit(3, seed=1).requires_grad_()
    cluster_prediction_loss(cluster_scores(embeddings, centroids), torch.zeros(6, dtype=torch.long)).backward()
    assert embeddings.grad is not None
    assert centroids.grad is None


def test_an_embedding_on_its_centroid_costs_less_than_on_another() -> None:
    centroids = torch.eye(3, dtype=torch.float64)
    right = cluster_prediction_loss(cluster_scores(centroids, centroids), torch.arange(3))
    wrong = cluster_prediction_loss(cluster_scores(centroids, centroids), torch.tensor([1, 2, 0]))
    assert right < 0.01 < wrong


def test_scores_are_float32_under_autocast() -> None:
    embeddings, centroids = unit(6).float(), unit(3, seed=1).float()
    with torch.autocast("cpu", torch.bfloat16):
        scores = cluster_scores(embeddings, centroids)
    assert scores.dtype == torch.float32
    assert torch.equal(scores, cluster_scores(embeddings, centroids))


def test_settings_and_shapes_that_mean_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="temperature must be positive, got 0"):
        cluster_scores(unit(2), unit(2), temperature=0)
    with pytest.raises(ValueError, match=r"scores \(2, 3\) and assignments \(3,\) must be \(V\*B, K\) and \(V\*B,\)"):
        cluster_prediction_loss(torch.zeros(2, 3), torch.zeros(3, dtype=torch.long))
