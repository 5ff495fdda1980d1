"""Which rows an epoch trains on, and what a class weighs in the loss."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

SAMPLINGS = ("all", "balanced")


def draw_epoch(labels: Sequence[int], sampling: str, ratio: float = 1.0) -> list[int]:
    """Indices of an epoch's rows, in a drawn order; from PyTorch's global generator.

    * `all`: every row once.
    * `balanced`: every row of the smallest class, and of each other class `ratio` times as many, drawn anew without
      replacement for each epoch (all that it has, where it has fewer). LUNA16 has 817 nodules among 377,138 candidates:
      an epoch of all would be 460 times as long and see a nodule every 58 steps.

    Args:
        labels: Class of each row.
        sampling: Of `SAMPLINGS`.
        ratio: See there.
    """
    if sampling == "all":
        return torch.randperm(len(labels)).tolist()
    of_row = torch.tensor(labels)
    counts = torch.bincount(of_row)
    smallest = int(counts[counts > 0].min())
    chosen = []
    for number, count in enumerate(counts.tolist()):
        wanted = count if count == smallest else min(count, round(ratio * smallest))
        rows = (of_row == number).nonzero().flatten()
        chosen.append(rows[torch.randperm(count)[:wanted]])
    rows = torch.cat(chosen)
    return rows[torch.randperm(len(rows))].tolist()


def loss_weights(labels: Sequence[int], classes: int, given: str | tuple[float, ...] | None) -> Tensor | None:
    """Weight of each class in the cross-entropy `(classes,)`: as given, none, or `balanced`.

    `balanced` is inverse to the classes' shares of the rows, as in scikit-learn: rows / (classes * rows of the class).
    """
    if given is None:
        return None
    if given == "balanced":
        counts = torch.bincount(torch.tensor(labels), minlength=classes)
        return len(labels) / (classes * counts.float())
    return torch.tensor([float(weight) for weight in given])
