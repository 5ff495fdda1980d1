"""Views that loader workers only plan: they read and draw, and the device that trains makes a batch of views at once.

A worker sends windows of volumes as they are stored, in one block of shared memory. They are half of their views where
slices are as fine as these, and more where slices are finer, since whole slices travel, until they are pooled. The
collator of the config sees the number of a view in place of its voxels, so that any of VISSL's lays views out as it
always does, and the voxels follow where the batch arrives. To the step, its hooks and a capture the batch is the one
that workers would have made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from vissl.config import AttrDict

from vissl_jointssl.plugin.options import RunOptions
from vissl_jointssl.views import (
    GREY_DEVIATION,
    GREY_MEAN,
    AnyParameters,
    Windows,
    drop_channels,
    least_window,
    make_views,
    pack_windows,
)

Collator = Callable[[list[dict[str, Any]]], dict[str, Any]]


@dataclass(frozen=True)
class PlannedView:
    """A view before it is made.

    Attributes:
        window: What `views.window` cuts out of the volume, as it is stored.
        parameters: The view.
        dropped: Channels that it is without.
    """

    window: Tensor
    parameters: AnyParameters
    dropped: tuple[int, ...]


@dataclass(frozen=True)
class PlannedBatch:
    """A batch of VISSL's, with numbers of views in place of views.

    Attributes:
        batch: What the collator made.
        windows: By number.
        parameters: By number.
        dropped: Dropped channels, by number.
    """

    batch: dict[str, Any]
    windows: Windows
    parameters: tuple[AnyParameters, ...]
    dropped: tuple[tuple[int, ...], ...]

    def pin_memory(self) -> PlannedBatch:
        """For `config.DATA.PIN_MEMORY`; PyTorch's loader asks for it by this name."""
        return replace(self, windows=self.windows.pin_memory())

    def make(self, device: torch.device) -> dict[str, Any]:
        """The batch, its views normalised, on the device.

        Noise is drawn on the device: on a GPU it is not the CPU's of the same seed.
        """
        windows = self.windows.to(device)

        def views_of(numbers: Tensor) -> Tensor:
            chosen = numbers.tolist()  # (B,)
            views = make_views(
                [windows[number] for number in chosen], [self.parameters[number] for number in chosen], same_noise=False
            )
            for view, number in zip(views, chosen, strict=True):
                if self.dropped[number]:
                    view.copy_(drop_channels(view, self.dropped[number]))
            return normalised(views)

        return {**self.batch, "data": _in_place_of_numbers(self.batch["data"], views_of)}


@dataclass(frozen=True)
class PlanningCollator:
    """A collator for samples of planned views.

    Attributes:
        collate: The one that `COLLATE_FUNCTION` names.
    """

    collate: Collator

    def __call__(self, samples: list[dict[str, Any]]) -> PlannedBatch:
        """Give every view of the samples a number, and let the other collator arrange the numbers."""
        plans: list[PlannedView] = []
        numbered = []
        for sample in samples:
            numbers = [torch.tensor(len(plans) + place) for place in range(len(sample["data"]))]
            plans += sample["data"]
            numbered.append({**sample, "data": numbers})
        return PlannedBatch(
            self.collate(numbered),
            pack_windows([least_window(plan.window, plan.parameters) for plan in plans]),
            tuple(plan.parameters for plan in plans),
            tuple(plan.dropped for plan in plans),
        )


class MadeBatches:
    """An epoch's planned batches as batches.

    Args:
        planned: The loader's iterator.
        device: What makes the views.
    """

    def __init__(self, planned: Iterator[PlannedBatch], device: torch.device) -> None:
        self._planned: Any = planned
        self._device = device

    def __iter__(self) -> MadeBatches:
        return self

    def __len__(self) -> int:
        """Steps of the epoch; VISSL's and Classy Vision's hooks ask."""
        return len(self._planned)

    def __next__(self) -> dict[str, Any]:
        return next(self._planned).make(self._device)


def views_device(cfg: Mapping[str, Any]) -> torch.device | None:
    """What makes the views of a run by `JOINT_SSL.VIEWS_ON`; None for loader workers."""
    on_gpu = cfg["MACHINE"]["DEVICE"] == "gpu"
    where = cfg["JOINT_SSL"].get("VIEWS_ON") or "auto"
    if where == "workers" or (where == "auto" and not on_gpu):
        return None
    return torch.device("cuda", torch.cuda.current_device()) if on_gpu else torch.device("cpu")


def view_maker_faults(cfg: AttrDict, run: RunOptions) -> list[str]:
    """What is wrong with views on the device, in words."""
    names = [transform["name"] for transform in cfg.DATA.TRAIN.TRANSFORMS]
    if run.views_on != "device" or names[-1:] == ["volume_views"]:
        return []
    return [
        f"JOINT_SSL.VIEWS_ON is device, but config.DATA.TRAIN.TRANSFORMS end in {(names or ['nothing'])[-1]!r}: only "
        "views of volumes, as the last transform, can be left to the device; leave VIEWS_ON out"
    ]


def normalised(views: Tensor) -> Tensor:
    """Views in [0, 1] as networks read them, in the same memory."""
    return views.sub_(GREY_MEAN).div_(GREY_DEVIATION)


def _in_place_of_numbers(data: Any, views_of: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(data, Tensor) and data.ndim == 1:
        return views_of(data)
    if isinstance(data, list):
        return [_in_place_of_numbers(one, views_of) for one in data]
    found = f"a tensor of {data.ndim} axes" if isinstance(data, Tensor) else type(data).__name__
    raise ValueError(
        f"config.DATA.TRAIN.COLLATE_FUNCTION gave {found} in place of a batch of views; set "
        "config.JOINT_SSL.VIEWS_ON=workers, or use multicrop_collator or simclr_collator"
    )
