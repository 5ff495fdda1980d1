"""`volume_views` and `volume_centre_view`: the views room as VISSL transforms.

Both take a volume `(F, H, W)` as `volume_dataset` gives it, memory-mapped, and read from disk only the slices they
need. They end in normalised tensors, because stock transforms such as `ToTensor` do not take volumes.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
import torch
from classy_vision.dataset.transforms import ClassyTransform, register_transform
from torch import Tensor

from vissl_jointssl.manifest import as_unit_interval
from vissl_jointssl.spelling import nearest
from vissl_jointssl.views import ViewParameters, ViewRecipe, apply_view, centre_view, draw_view, window

# One grey mean and deviation for slices and volumes alike: ImageNet's, averaged over its channels.
GREY_MEAN, GREY_DEVIATION = 0.449, 0.226


def read_view_recipe(arguments: dict[str, Any]) -> ViewRecipe:
    """A recipe from a transform's YAML keys.

    Raises:
        ValueError: For an unknown key or a value out of its limits.
    """
    known = [field.name for field in fields(ViewRecipe)]
    unknown = [f"{key!r} is read by nothing{nearest(key, known)}" for key in arguments if key not in known]
    if unknown:
        raise ValueError("; ".join(unknown))
    values: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in arguments.items()
    }
    return ViewRecipe(**values)


@register_transform("volume_views")
class VolumeViews(ClassyTransform):
    """V views of one volume, each drawn anew.

    Args:
        total_num_crops: V; VISSL's word, because its inference looks for it.
        recipe: Fields of `ViewRecipe`.
    """

    def __init__(self, total_num_crops: int = 2, **recipe: Any) -> None:
        self.num_views = total_num_crops
        self.recipe = read_view_recipe(recipe)

    def __call__(self, volume: np.ndarray) -> list[Tensor]:
        """Views `(F, 1, H, W)`, F, H and W as the recipe says; slices that do not exist are NaN.

        The draws come from torch's global generator, which VISSL seeds in each loader worker.
        """
        seeds = torch.randint(2**62, (self.num_views,))
        generators = [torch.Generator().manual_seed(int(seed)) for seed in seeds]
        shape = (volume.shape[0], volume.shape[1], volume.shape[2])
        return [_view(volume, draw_view(self.recipe, shape, generator)) for generator in generators]


@register_transform("volume_centre_view")
class VolumeCentreView(ClassyTransform):
    """The middle of a volume, without chance: for extraction and evaluation.

    Args:
        recipe: Fields of `ViewRecipe`; only its sizes matter.
    """

    def __init__(self, **recipe: Any) -> None:
        self.recipe = read_view_recipe(recipe)

    def __call__(self, volume: np.ndarray) -> Tensor:
        """One view `(F, 1, H, W)`."""
        return _view(volume, centre_view((volume.shape[0], volume.shape[1], volume.shape[2]), self.recipe))


def _view(volume: np.ndarray, parameters: ViewParameters) -> Tensor:
    pixels = torch.from_numpy(as_unit_interval(window(volume, parameters)))
    return (apply_view(pixels, parameters) - GREY_MEAN) / GREY_DEVIATION
