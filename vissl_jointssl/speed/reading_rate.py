"""How many volumes a second a data loader gets out of the cache, with and without worker processes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from vissl_jointssl.speed.crop_readers import from_cache
from vissl_jointssl.speed.volume_pairs import Crop

READS = 128  # at 3 ms each, long enough beside what starting an epoch costs
REPEATS = 3


class _Crops(Dataset[Tensor]):
    """The crops over and over; in a class of its own, so that workers can be sent it."""

    def __init__(self, crops: Sequence[Crop], reads: int) -> None:
        self.crops, self.reads = crops, reads

    def __len__(self) -> int:
        return self.reads

    def __getitem__(self, index: int) -> Tensor:
        return torch.from_numpy(from_cache(self.crops[index % len(self.crops)]))


def volumes_per_second(crops: Sequence[Crop], workers: int, reads: int = READS) -> float:
    """Crops a second, one of a volume each, that arrive in the main process; views are not drawn.

    Workers live over all epochs and the first epoch, in which they start, does not count.

    Args:
        crops: What is read, again and again.
        workers: Processes beside the main one; 0 reads in it.
        reads: Crops per epoch.
    """
    loader = DataLoader(_Crops(crops, reads), batch_size=None, num_workers=workers, persistent_workers=workers > 0)
    rates = []
    for _ in range(1 + REPEATS):
        start = time.perf_counter()
        for _ in loader:
            pass
        rates.append(reads / (time.perf_counter() - start))
    return statistics.median(rates[1:])
