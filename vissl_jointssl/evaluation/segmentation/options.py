"""What both segmentation tasks can be told, and its limits."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from vissl_jointssl.evaluation.best_epoch import SELECTIONS
from vissl_jointssl.spelling import nearest

SCHEDULES = ("constant", "polynomial")
AUGMENTATIONS = ("none", "flip")
STRIDE = 32  # of a ResNet's last block: the U-Net halves a side five times


@dataclass(frozen=True)
class SegmentationOptions:
    """Options of a training run.

    The paper says: Dice + CE, SGD, learning rate 0.1, and the epochs. It does not say batch size, momentum, schedule,
    size or augmentation; these are our choice.

    Attributes:
        labels: Numbers of the label map that are targets, each a mask of its own; of planes, counted from 1. None takes
            every number of the manifest's labelled rows.
        epochs: How often the training data is gone through.
        batch_size: Slices or images in a step.
        learning_rate: Of SGD.
        momentum: Of SGD.
        weight_decay: Of SGD.
        schedule: `constant`, or `polynomial`: the rate falls to 0 by the power 0.9.
        size: Pixels a side. Slices are squeezed to a square of it, whatever their shape, and predicted probabilities
            brought back.
        augment: `none`, or `flip`: left-right and up-down, each half of the time. Not for targets that know their side.
        samples_per_epoch: How many slices or images an epoch draws; None goes through them once. With small fractions
            of the labels, a number gives each fraction as many steps.
        select: `best`: the epoch that does best on the validation rows, if there are any, is tested; or `last`.

    Raises:
        ValueError: With every value that is out of its limits.
    """

    labels: tuple[int, ...] | None = None
    epochs: int = 50
    batch_size: int = 16
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 0.0
    schedule: str = "constant"
    size: int = 224
    augment: str = "none"
    samples_per_epoch: int | None = None
    select: str = "best"

    def __post_init__(self) -> None:
        if faults := self._option_faults():
            raise ValueError("; ".join(faults))

    def _option_faults(self) -> list[str]:
        faults = []
        numbers = isinstance(self.labels, tuple) and all(_is_whole(number, 1) for number in self.labels)
        if self.labels is not None and not (numbers and self.labels and len(set(self.labels)) == len(self.labels)):
            faults.append(f"labels is {self.labels!r}, expected a list of different numbers above 0, such as [3]")
        for name, least in (("epochs", 1), ("batch_size", 2), ("samples_per_epoch", 2)):
            value = getattr(self, name)
            if not _is_whole(value, least) and not (value is None and name == "samples_per_epoch"):
                faults.append(f"{name} is {value!r}, expected a whole number from {least}")  # BatchNorm needs two
        for name, below in (("learning_rate", math.inf), ("momentum", 1), ("weight_decay", math.inf)):
            value = getattr(self, name)
            if not is_number(value) or not 0 <= value < below:
                faults.append(f"{name} is {value!r}, expected a number from 0" + (" and below 1" if below == 1 else ""))
        if not _is_whole(self.size, STRIDE) or self.size % STRIDE:
            faults.append(f"size is {self.size!r}, expected a multiple of {STRIDE}, such as 224")
        for name, known in (("schedule", SCHEDULES), ("augment", AUGMENTATIONS), ("select", SELECTIONS)):
            value = getattr(self, name)
            if value not in known:
                faults.append(f"{name} is {value!r}{nearest(str(value), known)}")
        return faults


def is_number(value: Any) -> bool:
    """Whether it is a number, which YAML's `1e-4` is not: write 1.0e-4."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least
