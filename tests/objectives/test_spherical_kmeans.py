"""Spherical k-means: against slow loops and scikit-learn, on any number of ranks, with clusters that lose everyone."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans
from torch import Tensor
from torch.nn.functional import normalize

from vissl_jointssl.objectives.spherical_kmeans import (
    draw_first_centroids,
    nearest_centroids,
    refine_centroids,
    spherical_kmeans,
)


def directions(samples: int = 23, width: int = 5, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Random unit vectors."""
    generator = torch.Generator().manual_seed(seed)
    return normalize(torch.randn(samples, width, generator=generator, dtype=dtype), dim=1)


def bundles(each: int = 20, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Unit vectors close to four axes in turn, and which axis each is close to."""
    generator = torch.Generator().manual_seed(seed)
    classes = torch.arange(4 * each) % 4
    noise = 0.1 * torch.randn(len(classes), 6, generator=generator, dtype=torch.float64)
    return normalize(torch.eye(6, dtype=torch.float64)[classes] + noise, dim=1), classes


def at_degrees(*angles: float) -> Tensor:
    """Unit vectors in the plane."""
    radians = torch.tensor(angles, dtype=torch.float64).deg2rad()
    return torch.stack([radians.cos(), radians.sin()], dim=1)


def slowly(points: Tensor, centroids: Tensor, iterations: int) -> tuple[np.ndarray, list[int]]:
    """The same with one sample and one cluster at a time; an empty cluster restarts at the worst-fitting sample."""
    x, c = points.numpy(), centroids.numpy().copy()

    def assign() -> list[int]:
        return [max(range(len(c)), key=lambda k: (float(np.dot(point, c[k])), -k)) for point in x]

    for _ in range(iterations):
        nearest = assign()
        empty = []
        for k in range(len(c)):
            members = [point for point, cluster in zip(x, nearest, strict=True) if cluster == k]
            if members:
                c[k] = sum(members) / np.sqrt((sum(members) ** 2).sum())
            else:
                empty.append(k)
        fits = [(float(np.dot(point, c[k])), index) for index, (point, k) in enumerate(zip(x, nearest, strict=True))]
        for k, (_, index) in zip(empty, sorted(fits), strict=False):
            c[k] = x[index]
    return c, assign()


def partition(assignments: Tensor | np.ndarray | list[int]) -> set[frozenset[int]]:
    """Clusters without their numbers."""
    groups: dict[int, set[int]] = {}
    for sample, cluster in enumerate(assignments):
        groups.setdefault(int(cluster), set()).add(sample)
    return {frozenset(group) for group in groups.values()}


@pytest.mark.parametrize("clusters", [1, 4, 11, 23])
@pytest.mark.parametrize("iterations", [0, 1, 7])
def test_it_equals_a_slow_loop(clusters: int, iterations: int) -> None:
    points = directions()
    expected, nearest = slowly(points, draw_first_centroids(points, clusters, seed=3), iterations)
    centroids, assignments = spherical_kmeans(points, clusters, iterations, seed=3)
    np.testing.assert_allclose(centroids, expected, atol=1e-12)
    assert assignments.tolist() == nearest


def test_it_finds_the_clusters_that_scikit_learn_finds() -> None:
    points, classes = bundles()
    theirs = KMeans(4, n_init=5, random_state=0).fit(points.numpy())
    centroids, assignments = spherical_kmeans(points, 4, iterations=20, seed=1)
    assert partition(assignments) == partition(theirs.labels_) == partition(classes)
    directions_of_theirs = normalize(torch.from_numpy(theirs.cluster_centers_), dim=1)
    np.testing.assert_allclose((centroids @ directions_of_theirs.T).max(dim=1).values, 1, atol=1e-9)


def test_no_round_makes_the_fit_worse() -> None:
    points = directions(60)
    fits = [
        (points @ spherical_kmeans(points, 6, iterations, seed=0)[0].T).amax(dim=1).sum() for iterations in range(8)
    ]
    assert all(after >= before - 1e-12 for before, after in pairwise(fits))
    assert fits[-1] > fits[0]


def test_the_same_seed_gives_the_same_clusters_and_another_seed_others() -> None:
    points = directions()
    first, again, other = (spherical_kmeans(points, 6, 2, seed)[0] for seed in (5, 5, 6))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)


def test_first_centroids_are_different_samples() -> None:
    points = directions()
    first = draw_first_centroids(points, 23, seed=0)
    assert sorted(map(tuple, first.tolist())) == sorted(map(tuple, points.tolist()))


def test_a_cluster_that_lost_everyone_restarts_where_the_fit_is_worst() -> None:
    points = normalize(torch.tensor([[1.0, 0.0], [1.0, 0.1], [1.0, -0.1], [0.0, 1.0]], dtype=torch.float64), dim=1)
    far = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], dtype=torch.float64)  # nobody is near the second
    moved = refine_centroids(points, far, iterations=1)
    torch.testing.assert_close(moved[1], points[3])
    assert nearest_centroids(points, moved).tolist() == [0, 0, 0, 1]


def test_the_only_sample_of_a_cluster_is_not_taken_for_an_empty_one() -> None:
    # The third sample is alone and 70 degrees from where its centroid was; the fourth is 60 degrees from the crowd's.
    points, first = at_degrees(0, 17, 73, -60), at_degrees(0, 143, 180)
    assert nearest_centroids(points, first).tolist() == [0, 0, 1, 0]
    moved = refine_centroids(points, first, iterations=1)
    torch.testing.assert_close(moved[1:], points[2:])


def test_an_empty_cluster_may_stay_where_it_is_as_in_vissl() -> None:
    points = directions(6, 2).abs()
    far = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(refine_centroids(points, far, 3, reseed_empty=False)[1], far[1])


@pytest.mark.parametrize("samples", [3, 4])
def test_fewer_different_samples_than_clusters_leave_some_empty_and_nothing_undefined(samples: int) -> None:
    points = directions(2)[torch.arange(samples) % 2]
    centroids, assignments = spherical_kmeans(points, 3, 5, seed=0)
    assert centroids.isfinite().all()
    assert partition(assignments) == partition([index % 2 for index in range(samples)])


def test_samples_that_cancel_out_leave_no_centroid_without_direction() -> None:
    points = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], dtype=torch.float64)
    centroids, _ = spherical_kmeans(points, 1, 3, seed=0)
    torch.testing.assert_close(centroids.norm(dim=1), torch.ones(1, dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_it_computes_in_float32_or_better_and_centroids_have_length_one(dtype: torch.dtype) -> None:
    centroids, _ = spherical_kmeans(directions(dtype=torch.float32).to(dtype), 4, 5, seed=0)
    assert centroids.dtype == torch.promote_types(dtype, torch.float32)
    torch.testing.assert_close(centroids.norm(dim=1), torch.ones(4, dtype=centroids.dtype))


def test_many_samples_are_scored_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    points, centroids = directions(), directions(4, seed=1)
    whole = nearest_centroids(points, centroids)
    monkeypatch.setattr("vissl_jointssl.objectives.spherical_kmeans.ROWS_AT_ONCE", 5)
    assert torch.equal(nearest_centroids(points, centroids), whole)


@pytest.mark.parametrize("clusters", [0, 24])
def test_a_number_of_clusters_that_cannot_be_is_answered_with_those_that_can(clusters: int) -> None:
    with pytest.raises(ValueError, match=f"{clusters} clusters cannot be made of 23 samples; choose between 1 and 23"):
        spherical_kmeans(directions(), clusters, 1, seed=0)


@pytest.mark.parametrize("cut", [0, 1, 11, 20])
def test_two_ranks_with_unequal_shares_equal_one_rank_with_all(
    cut: int, on_two_ranks: Callable[[Callable[[int], object]], list]
) -> None:
    points = directions()
    # 20 clusters of 23 samples: some are empty on the way
    wanted = {clusters: spherical_kmeans(points, clusters, 6, seed=2) for clusters in (4, 20)}

    def cluster(rank: int) -> dict[int, tuple[np.ndarray, np.ndarray]]:
        share = points[cut:] if rank else points[:cut]
        found = {clusters: spherical_kmeans(share, clusters, 6, seed=2) for clusters in wanted}
        return {key: (centroids.numpy(), assignments.numpy()) for key, (centroids, assignments) in found.items()}

    ranks = on_two_ranks(cluster)
    for clusters, (centroids, assignments) in wanted.items():
        for rank in ranks:
            np.testing.assert_allclose(rank[clusters][0], centroids, atol=1e-14)
        np.testing.assert_array_equal(np.concatenate([rank[clusters][1] for rank in ranks]), assignments)


def test_clusters_that_empty_on_two_ranks_restart_at_the_same_samples_as_on_one(
    on_two_ranks: Callable[[Callable[[int], object]], list],
) -> None:
    points = directions()
    first = -directions(6, seed=9).abs()  # several of these attract nobody
    wanted = refine_centroids(points, first, 3)
    ranks = on_two_ranks(lambda rank: refine_centroids(points[7:] if rank else points[:7], first, 3).numpy())
    np.testing.assert_allclose(ranks[0], wanted, atol=1e-14)
    np.testing.assert_allclose(ranks[1], wanted, atol=1e-14)
