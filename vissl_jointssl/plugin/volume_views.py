"""`volume_views` and `volume_centre_view`: the views room as VISSL transforms.

Both take a volume as `volume_dataset` gives it, memory-mapped, and read from disk only the voxels they need. They end
in normalised tensors, because stock transforms such as `ToTensor` do not take volumes.

Beside the fields of the family's recipe, both read

* `family`: `crop` (`ViewRecipe`, the default) or `released` (`ReleasedRecipe`),
* `channels` and `channel_drop`: `ChannelRecipe`, for volumes `(C, F, H, W)`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from typing import Any, NamedTuple

import numpy as np
import torch
from classy_vision.dataset.transforms import ClassyTransform, register_transform
from torch import Tensor

from vissl_jointssl.manifest import as_unit_interval
from vissl_jointssl.plugin.planned_views import PlannedView, normalised
from vissl_jointssl.plugin.volume_sample import VolumeSample
from vissl_jointssl.spelling import nearest
from vissl_jointssl.views import (
    FAMILIES,
    AnyParameters,
    AnyRecipe,
    ChannelRecipe,
    apply_view,
    centre_view,
    channel_count,
    draw_channel,
    draw_dropped,
    draw_view,
    drop_channels,
    first_channel,
    sample_generator,
    take_channel,
    view_generator,
    window,
)


class Recipes(NamedTuple):
    """What a transform's YAML keys say."""

    view: AnyRecipe
    channels: ChannelRecipe


def read_view_recipe(arguments: dict[str, Any]) -> Recipes:
    """The recipes from a transform's YAML keys.

    Raises:
        ValueError: For an unknown family or key, or a value out of its limits.
    """
    values: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in arguments.items() if key != "family"
    }
    family = arguments.get("family", "crop")
    if family not in FAMILIES:
        raise ValueError(f"family {family!r} is not known{nearest(str(family), FAMILIES)}")
    of_view, of_channels = ({field.name for field in fields(kind)} for kind in (FAMILIES[family], ChannelRecipe))
    known = {"family", *of_view, *of_channels}
    unknown = [f"{key!r} is read by nothing{nearest(key, known)}" for key in values if key not in known]
    if unknown:
        raise ValueError("; ".join(unknown))
    return Recipes(
        FAMILIES[family](**{key: value for key, value in values.items() if key in of_view}),
        ChannelRecipe(**{key: value for key, value in values.items() if key in of_channels}),
    )


@register_transform("volume_views")
class VolumeViews(ClassyTransform):
    """V views of one volume, each drawn from the seed, the epoch, the sample and its own number alone.

    Args:
        total_num_crops: V; VISSL's word, because its inference looks for it.
        recipe: Keys of `read_view_recipe`.

    Attributes:
        plan_only: Whether views are left to the device that trains, see `planned_views`; the data loader sets it.
    """

    plan_only = False

    def __init__(self, total_num_crops: int = 2, **recipe: Any) -> None:
        self.num_views = total_num_crops
        self.recipe, self.channels = read_view_recipe(recipe)

    def __call__(self, sample: VolumeSample) -> list[Tensor] | list[PlannedView]:
        """Views `(F, C, H, W)`, F, H and W as the recipe says; slices that do not exist are NaN. Or their plans.

        Raises:
            ValueError: If the volume lacks something that the recipe needs, such as its spacing.
        """
        count = channel_count(sample.volume)
        with _named(sample):
            volume = take_channel(sample.volume, draw_channel(self.channels, count, sample_generator(sample.key)))
            plans = []
            for number in range(self.num_views):
                generator = view_generator(sample.key, number)
                parameters = draw_view(self.recipe, volume.shape, generator, sample.spacing)
                dropped = draw_dropped(self.channels, channel_count(volume), generator)
                plans.append((parameters, dropped))
            if self.plan_only:
                return [PlannedView(_stored(volume, parameters), parameters, dropped) for parameters, dropped in plans]
            return [normalised(drop_channels(_view(volume, parameters), dropped)) for parameters, dropped in plans]


@register_transform("volume_centre_view")
class VolumeCentreView(ClassyTransform):
    """The middle of a volume, without chance: for extraction and evaluation.

    Args:
        recipe: Keys of `read_view_recipe`; only the sizes matter. Where a channel would be drawn, it is the first.
    """

    def __init__(self, **recipe: Any) -> None:
        self.recipe, self.channels = read_view_recipe(recipe)

    def __call__(self, sample: VolumeSample) -> Tensor:
        """One view `(F, C, H, W)`.

        Raises:
            ValueError: As `VolumeViews`.
        """
        with _named(sample):
            volume = take_channel(sample.volume, first_channel(self.channels, channel_count(sample.volume)))
            return normalised(_view(volume, centre_view(volume.shape, self.recipe, sample.spacing)))


@contextmanager
def _named(sample: VolumeSample) -> Iterator[None]:
    """Say which volume of thousands it was."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"volume {sample.name!r}: {error}") from error


def _view(volume: np.ndarray, parameters: AnyParameters) -> Tensor:
    return apply_view(torch.from_numpy(as_unit_interval(window(volume, parameters))), parameters)


def _stored(volume: np.ndarray, parameters: AnyParameters) -> Tensor:
    """The window in memory of its own; what is mapped belongs to the file."""
    return torch.from_numpy(np.array(window(volume, parameters)))
