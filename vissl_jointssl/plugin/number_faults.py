"""What was not finite first in a training step, where, and with which samples."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from vissl_jointssl.objectives.over_ranks import join_ranks, rank_and_world
from vissl_jointssl.plugin.finite_checks import bad_samples

KINDS = ("input", "output", "loss", "gradient")  # in the order in which a fault spreads


class Fault(NamedTuple):
    """What was not finite first, and on which ranks."""

    kind: str
    ranks: list[int]


def first_fault(table: list[list[bool]]) -> Fault | None:
    """The first fault in a table of ranks by `KINDS`, True where something is not finite; None if all is well."""
    for number, kind in enumerate(KINDS):
        ranks = [rank for rank, flags in enumerate(table) if flags[number]]
        if ranks:
            return Fault(kind, ranks)
    return None


def words(task: Any, fault: Fault) -> str:
    """A fault as a clause: what, and on which ranks; a gradient by the name of its weight."""
    where = f"rank{'s' if len(fault.ranks) > 1 else ''} {', '.join(map(str, fault.ranks))}"
    if fault.kind != "gradient":
        return f"the {fault.kind} is NaN or infinite first, on {where}"
    bad = [
        name
        for name, weight in task.base_model.named_parameters()
        if weight.grad is not None and not weight.grad.isfinite().all()
    ]
    more = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
    # Gradients go from the loss backwards, so that the last weight has its gradient first.
    return f"the gradient of {bad[-1]}{more} is NaN or infinite first, on {where} (averaged over ranks)"


def suspects(task: Any, fault: Fault) -> list[tuple[int, int]]:
    """`(rank, index)` of every sample that may be at fault: an input's bad ones, else the faulty ranks' batches.

    Every rank must call this, and gets the same.
    """
    rank, _ = rank_and_world()
    indices = batch_indices(task.last_batch.sample).to(task.device)
    if fault.kind == "input":
        indices = indices[_bad_rows(task.last_batch.sample["input"]).to(task.device)]
    indices = indices.unique() if rank in fault.ranks else indices[:0]
    table = join_ranks(torch.stack([torch.full_like(indices, rank), indices], dim=1)).tolist()
    return [(of, index) for of, index in table]


def batch_indices(sample: Any) -> Tensor:
    """VISSL's `data_idx`: index in the data set of every row that the collator made, ``(rows,)``."""
    indices = sample["data_idx"]
    return (indices[0] if isinstance(indices, list) else indices).flatten()


def _bad_rows(batch: Any) -> Tensor:
    """Bad rows among those of `data_idx`: of one tensor, or of views in their order (multicrop_collator.py:12)."""
    views = [batch] if isinstance(batch, Tensor) else batch
    return torch.cat([bad_samples(view) for view in views])
