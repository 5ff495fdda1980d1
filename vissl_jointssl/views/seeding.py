"""Chance from four numbers: a view is a function of (seed, epoch, sample, view), whoever draws it and when.

A generator that a loader worker goes on drawing from makes a view depend on how many workers and ranks there are and
on what they drew before, so that a resumed run sees other views than an uninterrupted one. Here every view has a
generator of its own, seeded by hashing the four numbers with NumPy's `SeedSequence`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch


class SampleKey(NamedTuple):
    """What a sample's views are drawn from."""

    seed: int  # of the run
    epoch: int
    sample: int  # index in the data set


def view_generator(key: SampleKey, view: int) -> torch.Generator:
    """The generator of one view of one sample in one epoch.

    PyTorch's CPU generator keeps 32 bits of its seed. Two views of a whole run may thus share a stream (one pair in
    4.3e9), on different volumes or in different epochs; that is no loss.

    Args:
        key: Seed, epoch and sample.
        view: Counted from 0.

    Raises:
        ValueError: If one of the numbers is negative.
    """
    if view < 0:
        raise ValueError(f"view is {view}; views count from 0")
    return _generator(key, view + 1)


def sample_generator(key: SampleKey) -> torch.Generator:
    """The generator of what all views of a sample share, such as the channel they show.

    Raises:
        ValueError: If one of the numbers is negative.
    """
    return _generator(key, 0)


def _generator(key: SampleKey, stream: int) -> torch.Generator:
    if min(key) < 0:
        raise ValueError(f"views are drawn from {key}; expected a seed, an epoch and a sample that count from 0")
    words = np.array([*key, stream], dtype=np.uint64).view(np.uint32)  # 8 words: no two keys give the same ones
    state = np.random.SeedSequence(words.tolist()).generate_state(1)
    return torch.Generator().manual_seed(int(state[0]))
