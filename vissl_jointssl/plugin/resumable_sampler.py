"""PyTorch's distributed sampler with a place to begin at, for a run that is resumed within an epoch."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from torch.utils.data import Dataset
from torch.utils.data.distributed import DistributedSampler


class ResumableSampler(DistributedSampler):
    """The order of PyTorch's sampler, which VISSL uses by default, from any step of the epoch on.

    VISSL has a sampler of its own that can begin within an epoch (vissl/data/data_helper.py:92), but that one shuffles
    each rank's share of the data apart, so that a rank sees the same samples in every epoch.

    Args:
        dataset: What is sampled.
        batch_size: Samples of this rank in one step.
    """

    def __init__(self, dataset: Dataset, batch_size: int) -> None:
        super().__init__(dataset)
        self.batch_size = batch_size
        self.start_iter = 0

    def set_start_iter(self, start_iter: int) -> None:
        """VISSL's word for the step to begin at, in every epoch anew (vissl/trainer/train_task.py:779)."""
        self.start_iter = max(0, start_iter)

    def __iter__(self) -> Iterator[Any]:
        """Indices of this rank that the epoch has left."""
        return islice(super().__iter__(), self.start_iter * self.batch_size, None)
