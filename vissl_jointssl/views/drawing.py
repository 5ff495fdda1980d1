"""Drawing a view: all chance happens here, and ends in plain numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from vissl_jointssl.views.recipe import ViewRecipe

CROP_ATTEMPTS = 10


@dataclass(frozen=True)
class ViewParameters:
    """One view of one volume, decided.

    Attributes:
        size: H and W of the view.
        num_slices: F of the view.
        first_slice: First slice of the volume that is in it.
        slices: How many of the volume's slices are in it; the rest, up to `num_slices`, do not exist.
        affine: Two rows `(x', y')` of three: normalised view coordinates (x to the right, y down, [-1, 1] from edge to
            edge) to normalised slice coordinates, as `torch.nn.functional.affine_grid` takes them.
        flip_slices: Whether the order of the slices is reversed.
        gamma: Exponent of the grey values.
        contrast: Factor of the distance from the mean grey value.
        brightness: Shift of the grey values.
        blur: Deviation of the Gaussian blur, pixels; 0 for none.
        noise: Deviation of the noise; 0 for none.
        noise_seed: Seed of the noise.
    """

    size: tuple[int, int]
    num_slices: int
    first_slice: int
    slices: int
    affine: tuple[tuple[float, float, float], tuple[float, float, float]] = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))
    flip_slices: bool = False
    gamma: float = 1.0
    contrast: float = 1.0
    brightness: float = 0.0
    blur: float = 0.0
    noise: float = 0.0
    noise_seed: int = 0


def draw_view(recipe: ViewRecipe, shape: tuple[int, int, int], generator: torch.Generator) -> ViewParameters:
    """Draw one view of a volume.

    Geometry is one affine map of the plane, the same for all slices, so that a view is still a volume.

    Args:
        recipe: Limits.
        shape: (F, H, W) of the volume.
        generator: The only source of chance; each call draws the same number of values in the same order.

    Raises:
        ValueError: If the shape is not that of a volume.
    """
    _check_shape(shape)
    count, height, width = shape
    slices = min(count, recipe.num_slices)
    rows, columns = _draw_crop(recipe, generator)
    centre_y = _uniform(rows - 1, 1 - rows, generator)
    centre_x = _uniform(columns - 1, 1 - columns, generator)
    angle = math.radians(_uniform(-recipe.rotation, recipe.rotation, generator))
    mirror_y = -1.0 if _chance(recipe.flip_rows, generator) else 1.0
    mirror_x = -1.0 if _chance(recipe.flip_columns, generator) else 1.0
    # Rotation happens in pixels: normalised axes of a slice that is not square have different units.
    aspect = height * rows / (width * columns)
    cosine, sine = math.cos(angle), math.sin(angle)
    affine = (
        (columns * cosine * mirror_x, -columns * sine * aspect * mirror_y, centre_x),
        (rows * sine / aspect * mirror_x, rows * cosine * mirror_y, centre_y),
    )
    gamma = math.exp(_uniform(math.log(recipe.gamma[0]), math.log(recipe.gamma[1]), generator))
    blurred = _chance(recipe.blur_probability, generator)
    blur = _uniform(recipe.blur[0], recipe.blur[1], generator)
    return ViewParameters(
        size=recipe.size,
        num_slices=recipe.num_slices,
        first_slice=int(torch.randint(count - slices + 1, (), generator=generator)),
        slices=slices,
        affine=affine,
        flip_slices=_chance(recipe.flip_slices, generator),
        gamma=gamma,
        contrast=_uniform(recipe.contrast[0], recipe.contrast[1], generator),
        brightness=_uniform(-recipe.brightness, recipe.brightness, generator),
        blur=blur if blurred else 0.0,
        noise=_uniform(0.0, recipe.noise, generator),
        noise_seed=int(torch.randint(2**62, (), generator=generator)),
    )


def centre_view(shape: tuple[int, int, int], recipe: ViewRecipe) -> ViewParameters:
    """The view without chance: whole slices, the middle ones of the volume, grey values as they are."""
    _check_shape(shape)
    slices = min(shape[0], recipe.num_slices)
    return ViewParameters(recipe.size, recipe.num_slices, first_slice=(shape[0] - slices) // 2, slices=slices)


def _draw_crop(recipe: ViewRecipe, generator: torch.Generator) -> tuple[float, float]:
    """Share of the height and of the width that a crop covers; both at most 1, their product within `area`."""
    sides = (1.0, 1.0)
    for _ in range(CROP_ATTEMPTS):  # every attempt draws, so that later draws do not depend on which one fitted
        area = _uniform(recipe.area[0], recipe.area[1], generator)
        ratio = math.exp(_uniform(math.log(recipe.ratio[0]), math.log(recipe.ratio[1]), generator))
        rows, columns = math.sqrt(area * ratio), math.sqrt(area / ratio)
        if sides == (1.0, 1.0) and max(rows, columns) <= 1:
            sides = (rows, columns)
    if sides == (1.0, 1.0):
        sides = (math.sqrt(recipe.area[1]),) * 2  # nothing fitted: the largest crop of the slice's own shape
    return sides


def _check_shape(shape: tuple[int, ...]) -> None:
    if len(shape) != 3 or min(shape) < 1:
        raise ValueError(f"a volume has shape {tuple(shape)}; expected (F, H, W) with at least one voxel along each")


def _uniform(low: float, high: float, generator: torch.Generator) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator, dtype=torch.float64))


def _chance(probability: float, generator: torch.Generator) -> bool:
    return float(torch.rand((), generator=generator, dtype=torch.float64)) < probability
