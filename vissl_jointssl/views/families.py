"""One way to draw and to apply views of either family: the recipe, and then the parameters, say which one it is.

* crop (`ViewRecipe`): random resized crops, flips, rotations, and grey values; the default.
* released (`ReleasedRecipe`): what the authors' released code does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from vissl_jointssl.views.applying import apply_crop_view, crop_window
from vissl_jointssl.views.drawing import ViewParameters, centre_crop_view, draw_crop_view
from vissl_jointssl.views.millimetres import Spacing
from vissl_jointssl.views.recipe import ViewRecipe
from vissl_jointssl.views.released import (
    ReleasedRecipe,
    ReleasedViewParameters,
    apply_released_view,
    draw_released_view,
    plain_released_view,
    released_window,
)

AnyRecipe = ViewRecipe | ReleasedRecipe
AnyParameters = ViewParameters | ReleasedViewParameters
FAMILIES: dict[str, type[ViewRecipe] | type[ReleasedRecipe]] = {"crop": ViewRecipe, "released": ReleasedRecipe}

Volume = TypeVar("Volume", Tensor, np.ndarray)


def draw_view(
    recipe: AnyRecipe, shape: Sequence[int], generator: torch.Generator, spacing: Spacing | None = None
) -> AnyParameters:
    """Draw one view of a volume; see `draw_crop_view` and `draw_released_view`."""
    if isinstance(recipe, ReleasedRecipe):
        return draw_released_view(recipe, shape, generator, spacing)
    return draw_crop_view(recipe, shape, generator, spacing)


def centre_view(shape: Sequence[int], recipe: AnyRecipe, spacing: Spacing | None = None) -> AnyParameters:
    """The view without chance; see `centre_crop_view` and `plain_released_view`."""
    if isinstance(recipe, ReleasedRecipe):
        return plain_released_view(recipe, shape, spacing)
    return centre_crop_view(recipe, shape, spacing)


def window(volume: Volume, parameters: AnyParameters) -> Volume:
    """The part of a volume `(F, H, W)` or `(C, F, H, W)` that a view needs; of a mapped one, nothing is read yet."""
    if isinstance(parameters, ReleasedViewParameters):
        return released_window(volume, parameters)
    return crop_window(volume, parameters)


def apply_view(voxels: Tensor, parameters: AnyParameters) -> Tensor:
    """Make a view `(F, C, H, W)` of what `window` gives; see `apply_crop_view` and `apply_released_view`."""
    if isinstance(parameters, ReleasedViewParameters):
        return apply_released_view(voxels, parameters)
    return apply_crop_view(voxels, parameters)


def apply_views(volumes: Sequence[Tensor], parameters: Sequence[AnyParameters]) -> Tensor:
    """One view of each of several volumes, which may differ in shape but in C, as a batch `(B, F, C, H, W)`.

    Raises:
        ValueError: If there is not one view per volume, or their sizes differ.
    """
    if len(volumes) != len(parameters) or len({(view.num_slices, view.size) for view in parameters}) != 1:
        sizes = sorted({(view.num_slices, *view.size) for view in parameters})
        raise ValueError(
            f"{len(volumes)} volumes and {len(parameters)} views of sizes {sizes}; expected one size, one each"
        )
    return torch.stack([apply_view(window(*pair), pair[1]) for pair in zip(volumes, parameters, strict=True)])
