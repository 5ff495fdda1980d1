"""How long a loader takes for its first batch, and a data set for one sample."""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch

SAMPLES = 12
SECONDS = 10.0  # for all of them


def first_batch_seconds(loader: Any) -> float:
    """From the beginning of an epoch to its first batch; not a run's first epoch, which starts the fork server, too."""
    start = time.perf_counter()
    batches = iter(loader)
    next(batches)
    return time.perf_counter() - start


def sample_seconds(dataset: Any) -> float:
    """To load and transform one sample with one thread, as a worker does: the median of a few, drawn at random."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(0)).tolist()
    seconds: list[float] = []
    for index in order[:SAMPLES]:
        start = time.perf_counter()
        dataset[index]
        seconds.append(time.perf_counter() - start)
        if sum(seconds) > SECONDS:
            break
    torch.set_num_threads(threads)
    return statistics.median(seconds)
