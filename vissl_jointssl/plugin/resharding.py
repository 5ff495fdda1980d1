"""What each rank of a run remembered, shared out among another number of ranks.

Two kinds of memory are a rank's own: queues of past embeddings, newest first, and VISSL's DeepCluster-v2 memory, a list
of (sample index, embedding) in the order in which an epoch visits them. The same samples are remembered afterwards, as
far as there is room; which rank has which is another matter, so no such run is bit for bit the one it continues.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

State = Mapping[str, Tensor]

_OUR_QUEUE, _OUR_FILLED = "queue.stored", "queue.filled"
_VISSL_QUEUE = "swav_criterion.local_"  # local_emb_queue and local_queue0, 1, ... (vissl/losses/swav_loss.py:271)
_BANKS, _INDEX = "local_memory_embeddings", "local_memory_index"  # vissl/losses/deepclusterv2_loss.py:61


class Place(NamedTuple):
    """One rank among others."""

    rank: int
    world: int


def reshard_loss(states: Sequence[State], fresh: State, seen: Sequence[int], place: Place) -> dict[str, Tensor]:
    """A loss' state for one rank of the new run.

    Args:
        states: The loss' state on every rank of the old run.
        fresh: The state of a loss just made, on this rank of the new run: its shapes, and what stands where nothing
            is remembered.
        seen: Rows of the DeepCluster-v2 memory that each old rank had renewed in the epoch of the checkpoint.
        place: This rank of the new run.

    Returns:
        Queues and memories shared out; everything else is alike on all ranks, and rank 0's.
    """
    mine = dict(states[0])
    for name in fresh:
        if name.startswith(_VISSL_QUEUE):
            mine[name] = _in_front(fresh[name], share_queue([state[name] for state in states], place))
    if _OUR_QUEUE in fresh:
        filled = [state[_OUR_QUEUE][:, : int(state[_OUR_FILLED])] for state in states]
        queue = share_queue(filled, place)[:, : fresh[_OUR_QUEUE].shape[1]]
        mine[_OUR_QUEUE] = _in_front(fresh[_OUR_QUEUE], queue)
        mine[_OUR_FILLED] = torch.tensor(queue.shape[1])
    if _BANKS in fresh:
        memories = [(state[_BANKS], state[_INDEX]) for state in states]
        mine[_BANKS], mine[_INDEX] = share_memory(memories, seen, len(fresh[_INDEX]), place)
    return mine


def share_queue(queues: Sequence[Tensor], place: Place) -> Tensor:
    """One rank's part of all queues ``(A, n, D)``, newest first again, ``(A, ., D)``.

    Rows of one age stand together, and ranks take turns: each has old and new ones.
    """
    shortest = min(queue.shape[1] for queue in queues)
    together = rearrange([queue[:, :shortest] for queue in queues], "r a n d -> a (n r) d")
    return together[:, place.rank :: place.world]


def share_memory(
    memories: Sequence[tuple[Tensor, Tensor]], seen: Sequence[int], rows: int, place: Place
) -> tuple[Tensor, Tensor]:
    """One rank's part of all memories: embeddings ``(A, rows, D)`` and their sample indices ``(rows,)``.

    What the epoch has renewed comes first, because the rest of the epoch is written behind it. A sample that two ranks
    remember is kept once, as renewed last; where there are fewer samples than rows, some stand twice.

    Args:
        memories: Embeddings ``(A, n, D)`` and indices ``(n,)`` of each rank of the old run.
        seen: How many of each rank's rows are renewed; they come first.
        rows: Length of the new memory.
        place: This rank of the new run.
    """
    parts = list(zip(memories, seen, strict=True))
    mine_banks, mine_index = [], []
    known = np.empty(0, np.int64)
    for renewed in (True, False):
        cuts = [slice(0, count) if renewed else slice(count, None) for _, count in parts]
        banks = torch.cat([memory[0][:, cut] for (memory, _), cut in zip(parts, cuts, strict=True)], dim=1)
        index = torch.cat([memory[1][cut] for (memory, _), cut in zip(parts, cuts, strict=True)])
        _, first = np.unique(index.numpy(), return_index=True)
        first = np.sort(first[~np.isin(index.numpy()[first], known)])
        known = np.union1d(known, index.numpy()[first])
        chosen = torch.from_numpy(first)[place.rank :: place.world]
        mine_banks.append(banks[:, chosen])
        mine_index.append(index[chosen])
    embeddings, indices = torch.cat(mine_banks, dim=1), torch.cat(mine_index)
    again = torch.arange(rows) % len(indices)
    return embeddings[:, again], indices[again]


def _in_front(fresh: Tensor, queue: Tensor) -> Tensor:
    """A queue ``(A, L, D)`` that begins with what is remembered ``(A, n, D)``, as much as fits."""
    count = min(fresh.shape[1], queue.shape[1])
    whole = fresh.clone()
    whole[:, :count] = queue[:, :count]
    return whole
