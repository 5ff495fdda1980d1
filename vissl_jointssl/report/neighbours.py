"""Nearest neighbours in an embedding space, by cosine."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def nearest(
    embeddings: Tensor, queries: Sequence[int], k: int, *, groups: Sequence[str] | None = None
) -> tuple[Tensor, Tensor]:
    """The ``k`` embeddings closest to each query, never the query itself.

    Args:
        embeddings: One row per item, ``(N, D)``; need not be normalised.
        queries: Row numbers to look up, Q of them.
        k: Neighbours per query.
        groups: Name of each row's group, N of them. Neighbours then come from other groups only: the slice next to
            a slice of the same volume is a neighbour without any learning.

    Returns:
        Row numbers ``(Q, k)`` and cosines ``(Q, k)``, nearest first.

    Raises:
        ValueError: If a query is out of range or has fewer than ``k`` rows to choose from.
    """
    count = len(embeddings)
    if groups is not None and len(groups) != count:
        raise ValueError(f"there are {len(groups)} group names for {count} embeddings; give one for each")
    out_of_range = [query for query in queries if not 0 <= query < count]
    if out_of_range:
        raise ValueError(f"queries {out_of_range} are not rows of {count} embeddings; give numbers from 0")
    normalised = F.normalize(embeddings.float(), dim=1)
    cosines = normalised[list(queries)] @ normalised.T
    for row, query in enumerate(queries):
        barred = [
            other for other in range(count) if other == query or (groups is not None and groups[other] == groups[query])
        ]
        if count - len(barred) < k:
            raise ValueError(
                f"query {query} has {count - len(barred)} rows to choose {k} neighbours from; lower k or add volumes"
            )
        cosines[row, barred] = -torch.inf
    values, rows = cosines.topk(k, dim=1)
    return rows, values
