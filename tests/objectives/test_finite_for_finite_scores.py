"""Sinkhorn and k-means stay finite for whatever is finite: huge, tiny, equal and denormal values in float32."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from torch import Tensor
from torch.nn.functional import normalize

from vissl_jointssl.objectives.embedding_queue import codes_with_queue
from vissl_jointssl.objectives.sinkhorn import sinkhorn
from vissl_jointssl.objectives.spherical_kmeans import spherical_kmeans
from vissl_jointssl.objectives.swapped_prediction import swapped_prediction_loss

LARGEST = float(np.finfo(np.float32).max)
DENORMAL = float(np.finfo(np.float32).smallest_subnormal)
EXTREMES = st.sampled_from([LARGEST, -LARGEST, DENORMAL, -DENORMAL, 0.0, 1.0, -1.0, 1e-38, 1e38])
NUMBERS = st.floats(allow_nan=False, allow_infinity=False, width=32) | EXTREMES
TABLES = arrays(np.float32, array_shapes(min_dims=2, max_dims=2, max_side=9), elements=NUMBERS)
EPSILONS = st.sampled_from([0.05, 0.005, 1e-30, 10.0])


@settings(max_examples=300, deadline=None)
@given(TABLES, EPSILONS, st.integers(1, 5))
def test_codes_of_any_finite_scores_are_finite(table: np.ndarray, epsilon: float, iterations: int) -> None:
    codes = sinkhorn(torch.from_numpy(table), epsilon, iterations)
    assert codes.isfinite().all()
    assert codes.min() >= 0


@settings(max_examples=200, deadline=None)
@given(arrays(np.float32, (6, 5), elements=st.floats(-1000, 1000, width=32) | st.sampled_from([DENORMAL, 0.0])))
def test_codes_sum_to_one_a_thousand_times_beyond_what_cosines_can_be(table: np.ndarray) -> None:
    codes = sinkhorn(torch.from_numpy(table))
    # 2000 / 0.05 = 4e4 is the largest logarithm, which float32 holds to 4e-3
    torch.testing.assert_close(codes.sum(dim=1), torch.ones(6), rtol=0, atol=1e-2)


@settings(max_examples=100, deadline=None)
@given(arrays(np.float32, (5, 4), elements=NUMBERS), st.integers(0, 2**32))
def test_codes_of_a_batch_and_a_queue_are_finite(table: np.ndarray, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    queued, prototypes = (normalize(torch.randn(n, 3, generator=generator), dim=1) for n in (7, 4))
    codes = codes_with_queue(torch.from_numpy(table), queued, prototypes)
    assert codes.isfinite().all()


@settings(max_examples=300, deadline=None)
@given(TABLES, st.data())
def test_centroids_of_any_finite_rows_are_finite(table: np.ndarray, data: st.DataObject) -> None:
    clusters = data.draw(st.integers(1, len(table)))
    for rows in (torch.from_numpy(table), normalize(torch.from_numpy(table), dim=1)):
        centroids, assignments = spherical_kmeans(rows, clusters, 4, seed=0)
        assert centroids.isfinite().all()
        assert ((assignments >= 0) & (assignments < clusters)).all()


def _directions(samples: int) -> Tensor:
    return normalize(torch.randn(samples, 4, generator=torch.Generator().manual_seed(1)), dim=1)


def test_huge_rows_are_clustered_like_small_ones_of_the_same_directions() -> None:
    rows = _directions(40)
    rows /= rows.abs().amax(dim=1, keepdim=True)  # the largest component is 1 or -1
    centroids, assignments = spherical_kmeans(rows, 5, 10, seed=0)
    same_centroids, same_assignments = spherical_kmeans(rows * LARGEST, 5, 10, seed=0)
    torch.testing.assert_close(same_centroids, centroids)
    assert torch.equal(same_assignments, assignments)


@settings(max_examples=100, deadline=None)
@given(arrays(np.float32, (2, 3, 4), elements=st.floats(-1, 1, width=32)))
def test_the_loss_of_cosines_and_their_codes_is_finite_with_its_gradient(scores: np.ndarray) -> None:
    views = torch.from_numpy(scores).requires_grad_()
    codes = torch.stack([sinkhorn(view) for view in views])
    loss = swapped_prediction_loss(views, codes, [0, 1])
    loss.backward()
    assert loss.isfinite()
    assert views.grad is not None
    assert views.grad.isfinite().all()
