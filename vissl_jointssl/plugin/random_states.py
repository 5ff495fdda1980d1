"""Python's, NumPy's and PyTorch's global generators: kept, given back, and seeded for one sample.

VISSL's and torchvision's transforms draw from all three, and layers from PyTorch's. A loader worker that goes on
drawing makes a sample depend on how many workers there are and what they did before; here a sample is a function of
(seed, epoch, index), as those of `volume_views` already are.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.utils.data import get_worker_info

from vissl_jointssl.plugin.micro_batches import random_state
from vissl_jointssl.views import SampleKey


def take_random_states() -> dict[str, Any]:
    """State of the CPU's three generators, and of the current GPU's once there is one, as tensors and plain values."""
    version, words, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    cpu, gpu = random_state()
    return {
        "python": [version, list(words), gauss],
        "numpy": [name, torch.from_numpy(np.asarray(keys, np.int64)), position, has_gauss, cached],
        "cpu": cpu,
        "gpu": gpu,
    }


def give_back_random_states(states: Mapping[str, Any]) -> None:
    """Let every generator go on from where `take_random_states` found it.

    A GPU's state from a run on GPUs has no meaning on a machine without, and is left out there.
    """
    version, words, gauss = states["python"]
    random.setstate((version, tuple(words), gauss))
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(states["cpu"])
    if states["gpu"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["gpu"])


@contextmanager
def seeded_for(key: SampleKey) -> Iterator[None]:
    """Draw what is drawn within from a sample's key alone; the generators go on afterwards as if nothing had been.

    Of the CPU: loader workers must not touch a GPU, and transforms do not. A worker's generators serve samples only, so
    that there they stay as they are, which costs 20 microseconds and not 250.

    Raises:
        ValueError: If one of the key's numbers is negative.
    """
    if min(key) < 0:
        raise ValueError(f"a sample is drawn from {key}; expected a seed, an epoch and a sample that count from 0")
    in_worker = get_worker_info() is not None
    before = None if in_worker else (random.getstate(), np.random.get_state(), torch.get_rng_state())
    words = [int(word) for word in np.random.SeedSequence(list(key)).generate_state(4)]
    try:
        random.seed(words[0])
        np.random.seed(words[1])
        torch.default_generator.manual_seed(words[2] << 32 | words[3])  # not torch.manual_seed: it seeds GPUs, too
        yield
    finally:
        if before is not None:
            random.setstate(before[0])
            np.random.set_state(before[1])
            torch.set_rng_state(before[2])
