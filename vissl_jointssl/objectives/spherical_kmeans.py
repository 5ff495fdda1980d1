"""k-means on the unit sphere over the samples of all ranks, by which DeepCluster-v2 gets its assignments.

Each rank holds a share of the samples; the shares, of any sizes, count as one list in rank order. Nothing depends on
where the list is cut: first centroids are drawn by position in it, so the same list gives the same clusters on any
number of ranks, up to the rounding of sums.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from vissl_jointssl.objectives.over_ranks import join_ranks, over_ranks, place_in_all_ranks

ROWS_AT_ONCE = 1 << 14  # of the table of scores: 16384 samples * 3000 clusters * 4 bytes = 197 MB


def spherical_kmeans(embeddings: Tensor, clusters: int, iterations: int, seed: int) -> tuple[Tensor, Tensor]:
    """Cluster unit vectors by their direction.

    Args:
        embeddings: This rank's share, ``(n, D)``, of unit length; n may be 0. Computed in float32 or better. Any finite
            rows give finite centroids.
        clusters: K.
        iterations: Rounds of assigning and moving; the assignments come from one more.
        seed: Draws the first centroids, the same on every rank.

    Returns:
        ``centroids`` (K, D), of unit length and equal on all ranks, and ``assignments`` (n,) of this rank's share.

    Raises:
        ValueError: If all ranks together hold fewer samples than clusters.
    """
    embeddings = embeddings.to(torch.promote_types(embeddings.dtype, torch.float32))
    with torch.no_grad():
        # Unit vectors stay as they are, having nothing above 1; sums of rows near the largest float would be infinite.
        embeddings = embeddings / embeddings.abs().amax(dim=1, keepdim=True).clamp(min=1)
        first = draw_first_centroids(embeddings, clusters, seed)
        centroids = refine_centroids(embeddings, first, iterations)
        return centroids, nearest_centroids(embeddings, centroids)


def draw_first_centroids(embeddings: Tensor, clusters: int, seed: int) -> Tensor:
    """K different samples of all ranks, ``(K, D)``.

    Raises:
        ValueError: As in `spherical_kmeans`.
    """
    _, total = place_in_all_ranks(len(embeddings), embeddings.device)
    if not 1 <= clusters <= total:
        raise ValueError(
            f"{clusters} clusters cannot be made of {total} samples; choose between 1 and {total} clusters"
        )
    chosen = torch.randperm(total, generator=torch.Generator().manual_seed(seed))[:clusters]
    return _samples_of_all_ranks(embeddings, chosen.to(embeddings.device))


def refine_centroids(embeddings: Tensor, centroids: Tensor, iterations: int, reseed_empty: bool = True) -> Tensor:
    """Move each centroid to the mean direction of its samples, again and again.

    Args:
        embeddings: This rank's share, ``(n, D)``.
        centroids: First centroids ``(K, D)``, equal on all ranks.
        iterations: Rounds.
        reseed_empty: A centroid that lost its samples (or whose samples cancel out) restarts at the sample that fits
            its own centroid worst, the second such centroid at the second worst, and so on: where the clustering is
            poorest, a cluster is most use, and no chance is needed that ranks would have to share. Otherwise an empty
            one stays where it was, as in VISSL (vissl/losses/deepclusterv2_loss.py:191).

    Returns:
        Centroids ``(K, D)``. With fewer different samples than clusters, some are still empty.
    """
    for _ in range(iterations):
        nearest = nearest_centroids(embeddings, centroids)
        sums = over_ranks(torch.zeros_like(centroids).index_add_(0, nearest, embeddings))
        filled = sums.norm(dim=1) > torch.finfo(sums.dtype).eps
        centroids = torch.where(filled[:, None], normalize(sums, dim=1), centroids)
        if reseed_empty and not filled.all():
            # Measured after the move, so that the only sample of a cluster, which fits it exactly, is not taken away.
            fit = join_ranks((embeddings * centroids[nearest]).sum(dim=1))
            empty = (~filled).nonzero().flatten()
            worst = fit.argsort(stable=True)[: len(empty)]
            centroids[empty] = _samples_of_all_ranks(embeddings, worst)
    return centroids


def nearest_centroids(embeddings: Tensor, centroids: Tensor) -> Tensor:
    """Index of the centroid with the largest cosine, the first of equals; ``(n, D), (K, D) -> (n,)``."""
    return torch.cat([(rows @ centroids.T).argmax(dim=1) for rows in embeddings.split(ROWS_AT_ONCE)])


def _samples_of_all_ranks(embeddings: Tensor, positions: Tensor) -> Tensor:
    """Rows at positions in the list of all ranks' samples, on every rank."""
    start, _ = place_in_all_ranks(len(embeddings), embeddings.device)
    own = positions - start
    here = (own >= 0) & (own < len(embeddings))
    rows = embeddings.new_zeros(len(positions), embeddings.shape[1])
    rows[here] = embeddings[own[here]]
    return over_ranks(rows)
