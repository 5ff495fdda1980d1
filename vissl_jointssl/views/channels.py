"""Channels of a volume, such as the sequences of an MRI: choose one, or keep all and drop some.

A volume `(F, H, W)` has one channel and passes through all of this. Of a volume `(C, F, H, W)`

* `choose` takes one channel, drawn per volume and epoch and the same for all its views: the paper counts every sequence
  of a BraTS scan as a volume of its own, and two views of different sequences would teach f_intra to ignore the
  contrast that downstream tasks read. A number instead of `choose` takes that channel always. Views with C = 1 fit the
  pre-trained stem for three channels, which gets copies.
* `all` keeps the channels in their order, and drops each with a probability of its own from each view, never all of
  them. The network's stem must take C channels: a ResNet-50's takes 3, so with other numbers choose one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

GREY_MEAN = 0.449  # ImageNet's, averaged over its channels; slices and volumes are normalised by these
GREY_DEVIATION = 0.226

Volume = TypeVar("Volume", Tensor, np.ndarray)


@dataclass(frozen=True)
class ChannelRecipe:
    """How views treat channels.

    Attributes:
        channels: `choose`, `all`, or the number of one channel, counted from 0.
        channel_drop: Probability that a channel is dropped from a view; for `all` only.

    Raises:
        ValueError: With every value that is out of its limits.
    """

    channels: str | int = "choose"
    channel_drop: float = 0.0

    def __post_init__(self) -> None:
        faults = []
        number = isinstance(self.channels, int) and self.channels >= 0
        if self.channels not in ("choose", "all") and not number:
            faults.append(f"channels is {self.channels!r}; expected choose, all, or the number of one channel")
        if not 0 <= self.channel_drop < 1:
            faults.append(f"channel_drop is {self.channel_drop}; expected a probability below 1")
        if self.channels != "all" and self.channel_drop:
            faults.append(f"channel_drop is {self.channel_drop}, but views have one channel; set channels: all")
        if faults:
            raise ValueError("; ".join(faults))


def channel_count(volume: Tensor | np.ndarray) -> int:
    """C of a volume `(C, F, H, W)`, 1 of a volume `(F, H, W)`."""
    return volume.shape[0] if volume.ndim == 4 else 1


def draw_channel(recipe: ChannelRecipe, count: int, generator: torch.Generator) -> int | None:
    """Which of `count` channels the views of a volume show; None for all.

    Raises:
        ValueError: If the recipe's channel does not exist.
    """
    drawn = int(torch.randint(count, (), generator=generator))
    return drawn if recipe.channels == "choose" else first_channel(recipe, count)


def first_channel(recipe: ChannelRecipe, count: int) -> int | None:
    """As `draw_channel`, without chance: the first where one would be drawn."""
    if isinstance(recipe.channels, int) and recipe.channels >= count:
        raise ValueError(f"channels is {recipe.channels}, but there are only {count}, counted from 0")
    if isinstance(recipe.channels, int):
        return recipe.channels
    return 0 if recipe.channels == "choose" else None


def draw_dropped(recipe: ChannelRecipe, count: int, generator: torch.Generator) -> tuple[int, ...]:
    """Which of `count` channels are dropped from a view; at least one stays."""
    falls = torch.rand(count, generator=generator, dtype=torch.float64) < recipe.channel_drop
    spared = int(torch.randint(count, (), generator=generator))
    if falls.all():
        falls[spared] = False
    return tuple(falls.nonzero().flatten().tolist())


def take_channel(volume: Volume, channel: int | None) -> Volume:
    """One channel `(F, H, W)` of a volume `(C, F, H, W)`, or all of it; nothing is read of a memory-mapped one."""
    return volume[channel] if volume.ndim == 4 and channel is not None else volume


def drop_channels(view: Tensor, dropped: tuple[int, ...]) -> Tensor:
    """A view `(F, C, H, W)` without some channels: they turn `GREY_MEAN`, zero once normalised, and say nothing.

    Slices that do not exist stay NaN.
    """
    if not dropped:
        return view
    gone = torch.tensor([channel in dropped for channel in range(view.shape[1])], device=view.device)
    return torch.where(gone[:, None, None] & ~view.isnan(), GREY_MEAN, view)
