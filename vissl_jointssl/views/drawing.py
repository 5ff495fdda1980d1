"""Drawing a view: all chance happens here, and ends in plain numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from vissl_jointssl.views.millimetres import SlicePlaces, Spacing, crop_shares, place_slices
from vissl_jointssl.views.recipe import MILLIMETRES, ViewRecipe

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
        contrast: Factor of the distance from the channel's mean grey value.
        brightness: Shift of the grey values.
        blur: Deviation of the Gaussian blur, pixels; 0 for none.
        noise: Deviation of the noise; 0 for none.
        noise_seed: Seed of the noise.
        resampled: None where these slices are taken as they are. Else `(count, start, step)`: the view has `count`
            slices, at `start + i * step` in slices counted from `first_slice`, and the rest do not exist.
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
    resampled: tuple[int, float, float] | None = None


def draw_crop_view(
    recipe: ViewRecipe, shape: Sequence[int], generator: torch.Generator, spacing: Spacing | None = None
) -> ViewParameters:
    """Draw one view of a volume.

    Geometry is one affine map of the plane, the same for all slices, so that a view is still a volume.

    Args:
        recipe: Limits.
        shape: (F, H, W) of the volume, or (C, F, H, W).
        generator: The only source of chance; each call with a recipe draws the same number of values in the same order.
        spacing: Size of a voxel along (F, H, W), mm. None where unknown: pixels then count as square.

    Raises:
        ValueError: If the shape is not that of a volume, or a recipe in millimetres meets an unknown spacing.
    """
    count, height, width = _lengths(shape)
    apart, tall, wide = _known_spacing(recipe, spacing)
    if recipe.crop_millimetres is None:
        rows, columns = _draw_crop(recipe, generator)
    else:
        side, ratio = _uniform(*recipe.crop_millimetres, generator), _log_uniform(*recipe.ratio, generator)
        rows, columns = crop_shares(side, ratio, (height * tall, width * wide))
    centre_y = _uniform(rows - 1, 1 - rows, generator)
    centre_x = _uniform(columns - 1, 1 - columns, generator)
    angle = math.radians(_uniform(-recipe.rotation, recipe.rotation, generator))
    mirror_y = -1.0 if _chance(recipe.flip_rows, generator) else 1.0
    mirror_x = -1.0 if _chance(recipe.flip_columns, generator) else 1.0
    # Rotation happens in mm: normalised axes of a slice that is not square have different units.
    aspect = height * tall * rows / (width * wide * columns)
    cosine, sine = math.cos(angle), math.sin(angle)
    affine = (
        (columns * cosine * mirror_x, -columns * sine * aspect * mirror_y, centre_x),
        (rows * sine / aspect * mirror_x, rows * cosine * mirror_y, centre_y),
    )
    gamma = _log_uniform(*recipe.gamma, generator)
    blurred = _chance(recipe.blur_probability, generator)
    blur = _uniform(recipe.blur[0], recipe.blur[1], generator)
    first, slices, resampled = _draw_slices(recipe, count, apart, generator)
    return ViewParameters(
        size=recipe.size,
        num_slices=recipe.num_slices,
        first_slice=first,
        slices=slices,
        resampled=resampled,
        affine=affine,
        flip_slices=_chance(recipe.flip_slices, generator),
        gamma=gamma,
        contrast=_uniform(recipe.contrast[0], recipe.contrast[1], generator),
        brightness=_uniform(-recipe.brightness, recipe.brightness, generator),
        blur=blur if blurred else 0.0,
        noise=_uniform(0.0, recipe.noise, generator),
        noise_seed=int(torch.randint(2**62, (), generator=generator)),
    )


def centre_crop_view(recipe: ViewRecipe, shape: Sequence[int], spacing: Spacing | None = None) -> ViewParameters:
    """The view without chance: whole slices, the middle ones of the volume, grey values as they are.

    Of a recipe in millimetres, the middle of its ranges: that crop and that depth, in the middle of the volume.

    Raises:
        ValueError: As in `draw_crop_view`.
    """
    count, height, width = _lengths(shape)
    apart, tall, wide = _known_spacing(recipe, spacing)
    rows, columns = 1.0, 1.0
    if recipe.crop_millimetres is not None:
        rows, columns = crop_shares(sum(recipe.crop_millimetres) / 2, 1.0, (height * tall, width * wide))
    affine = ((columns, 0.0, 0.0), (0.0, rows, 0.0))
    if recipe.depth_millimetres is None:
        slices = min(count, recipe.num_slices)
        return ViewParameters(recipe.size, recipe.num_slices, (count - slices) // 2, slices, affine)
    step = sum(recipe.depth_millimetres) / 2 / recipe.num_slices / apart
    first, slices, resampled = _split(place_slices(count, recipe.num_slices, step, offset=0.5))
    return ViewParameters(recipe.size, recipe.num_slices, first, slices, affine, resampled=resampled)


def _draw_slices(
    recipe: ViewRecipe, count: int, apart: float, generator: torch.Generator
) -> tuple[int, int, tuple[int, float, float] | None]:
    """`first_slice`, `slices` and `resampled` of a view."""
    if recipe.depth_millimetres is None:
        slices = min(count, recipe.num_slices)
        return int(torch.randint(count - slices + 1, (), generator=generator)), slices, None
    depth = _uniform(*recipe.depth_millimetres, generator)
    step = depth / recipe.num_slices / apart
    return _split(place_slices(count, recipe.num_slices, step, offset=_uniform(0.0, 1.0, generator)))


def _split(places: SlicePlaces) -> tuple[int, int, tuple[int, float, float]]:
    return places.first, places.slices, (places.count, places.start, places.step)


def _draw_crop(recipe: ViewRecipe, generator: torch.Generator) -> tuple[float, float]:
    """Share of the height and of the width that a crop covers; both at most 1, their product within `area`."""
    sides = (1.0, 1.0)
    for _ in range(CROP_ATTEMPTS):  # every attempt draws, so that later draws do not depend on which one fitted
        area = _uniform(recipe.area[0], recipe.area[1], generator)
        ratio = _log_uniform(*recipe.ratio, generator)
        rows, columns = math.sqrt(area * ratio), math.sqrt(area / ratio)
        if sides == (1.0, 1.0) and max(rows, columns) <= 1:
            sides = (rows, columns)
    if sides == (1.0, 1.0):
        sides = (math.sqrt(recipe.area[1]),) * 2  # nothing fitted: the largest crop of the slice's own shape
    return sides


def _lengths(shape: Sequence[int]) -> tuple[int, int, int]:
    if len(shape) not in (3, 4) or min(shape) < 1:
        raise ValueError(
            f"a volume has shape {tuple(shape)}; expected (F, H, W) or (C, F, H, W) with at least one voxel along each"
        )
    return shape[-3], shape[-2], shape[-1]


def _known_spacing(recipe: ViewRecipe, spacing: Spacing | None) -> Spacing:
    if spacing is not None:
        return spacing
    asked = [name for name in MILLIMETRES if getattr(recipe, name) is not None]
    if asked:
        raise ValueError(
            f"{' and '.join(asked)} need the size of the volume's voxels, and its spacing is not known; "
            "fill in the spacing of its row in the manifest, or leave these options out"
        )
    return 1.0, 1.0, 1.0


def _uniform(low: float, high: float, generator: torch.Generator) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator, dtype=torch.float64))


def _log_uniform(low: float, high: float, generator: torch.Generator) -> float:
    return math.exp(_uniform(math.log(low), math.log(high), generator))


def _chance(probability: float, generator: torch.Generator) -> bool:
    return float(torch.rand((), generator=generator, dtype=torch.float64)) < probability
