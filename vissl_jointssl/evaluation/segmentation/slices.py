"""Slices to learn from, in two pools: with a target and without (paper, appendix: "to avoid imbalance")."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from vissl_jointssl.evaluation.segmentation.targets import Targets, numbers_by_slice
from vissl_jointssl.manifest import Entry, Manifest


@dataclass(frozen=True)
class Sample:
    """One slice of a volume, by its number along F, or an image, whose number is 0."""

    entry: Entry
    number: int = 0


@dataclass(frozen=True)
class Pools:
    """Two pools.

    Attributes:
        target: Samples that show at least one target.
        background: Samples that show none.
    """

    target: tuple[Sample, ...]
    background: tuple[Sample, ...] = ()

    def draw(self, background_share: float, count: int | None = None) -> list[Sample]:
        """The samples of an epoch, in an order of chance, from PyTorch's generator.

        Each pool is gone through in an order of chance, and again where more are drawn than it has.

        Args:
            background_share: Of the samples without a target, below 1. An empty pool gives its share to the other.
            count: How many; None takes as many as show each sample with a target once. At least two, for BatchNorm.
        """
        share = background_share if self.background else 0.0
        count = max(2, round(len(self.target) / (1 - share)) if count is None else count)
        background = round(count * share)
        drawn = [*_drawn(self.target, count - background), *_drawn(self.background, background)]
        return [drawn[place] for place in torch.randperm(len(drawn)).tolist()]


def slice_pools(manifest: Manifest, rows: Sequence[Entry], targets: Targets) -> Pools:
    """Every slice of some volumes, sorted by whether a target is on it."""
    wanted = set(targets.numbers)
    pools: tuple[list[Sample], list[Sample]] = ([], [])
    for entry in rows:
        for number, present in enumerate(numbers_by_slice(manifest, entry)):
            pools[0 if present & wanted else 1].append(Sample(entry, number))
    return Pools(tuple(pools[0]), tuple(pools[1]))


def _drawn(pool: Sequence[Sample], count: int) -> list[Sample]:
    drawn: list[Sample] = []
    while len(drawn) < count:
        drawn += [pool[place] for place in torch.randperm(len(pool)).tolist()]
    return drawn[:count]
