"""Sums and shares over the ranks of a run; on one rank, or without torch.distributed, everything is as it is."""

from __future__ import annotations

import torch
from torch import Tensor, distributed


def rank_and_world() -> tuple[int, int]:
    """This rank and the number of ranks; (0, 1) outside a distributed run."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def over_ranks(value: Tensor, operation: distributed.ReduceOp.RedOpType = distributed.ReduceOp.SUM) -> Tensor:
    """Combine a tensor of the same shape over all ranks; every rank must call this. A new tensor."""
    value = value.clone(memory_format=torch.contiguous_format)
    if rank_and_world()[1] > 1:
        distributed.all_reduce(value, op=operation)
    return value


def place_in_all_ranks(count: int, device: torch.device) -> tuple[int, int]:
    """Where this rank's `count` samples stand when those of rank 0, 1, ... are lined up: first index, and the total."""
    rank, world = rank_and_world()
    counts = torch.zeros(world, dtype=torch.long, device=device)
    counts[rank] = count
    each = over_ranks(counts).tolist()
    return sum(each[:rank]), sum(each)


def join_ranks(share: Tensor) -> Tensor:
    """The shares ``(n, ...)`` of all ranks lined up in rank order, ``(total, ...)``; n may differ between ranks."""
    start, total = place_in_all_ranks(len(share), share.device)
    whole = share.new_zeros(total, *share.shape[1:])
    whole[start : start + len(share)] = share
    return over_ranks(whole)
