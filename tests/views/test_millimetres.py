"""Crops and depths in millimetres: volumes of different voxels show the same anatomy."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from vissl_jointssl.views import ViewParameters, ViewRecipe, apply_view, centre_view, draw_view, window
from vissl_jointssl.views.millimetres import place_slices

PLAIN = {"rotation": 0.0, "flip_rows": 0.0, "flip_columns": 0.0, "flip_slices": 0.0}
PLAIN |= {"gamma": (1.0, 1.0), "contrast": (1.0, 1.0), "brightness": 0.0, "blur_probability": 0.0, "noise": 0.0}


def draws(recipe: ViewRecipe, shape, spacing, count: int = 500) -> list[ViewParameters]:
    generator = torch.Generator().manual_seed(0)
    return [draw_view(recipe, shape, generator, spacing) for _ in range(count)]


def sides(view: ViewParameters, shape, spacing) -> tuple[float, float]:
    """Height and width of an upright crop, mm."""
    return view.affine[1][1] * shape[1] * spacing[1], view.affine[0][0] * shape[2] * spacing[2]


@pytest.mark.parametrize(("shape", "spacing"), [((9, 200, 300), (5.0, 1.0, 1.0)), ((9, 500, 400), (1.0, 0.4, 0.75))])
def test_crops_are_as_large_in_millimetres_as_drawn_whatever_the_voxels(shape, spacing):
    recipe = ViewRecipe((32, 32), 8, crop_millimetres=(60.0, 120.0), ratio=(0.8, 1.25), **PLAIN)
    measured = [sides(view, shape, spacing) for view in draws(recipe, shape, spacing)]
    areas = torch.tensor([math.sqrt(height * width) for height, width in measured])
    assert areas.min() >= 60 - 1e-4
    assert areas.max() <= 120 + 1e-4
    quartiles = torch.quantile(areas, torch.tensor([0.25, 0.5, 0.75]))
    assert (quartiles - torch.tensor([75.0, 90.0, 105.0])).abs().max() < 4
    ratios = [height / width for height, width in measured]
    assert 0.8 - 1e-6 <= min(ratios) < 0.82
    assert 1.22 < max(ratios) <= 1.25 + 1e-6


def test_a_scan_smaller_than_the_crop_is_seen_at_most_whole_and_in_proportion():
    shape, spacing = (9, 50, 100), (1.0, 1.0, 1.0)
    recipe = ViewRecipe((32, 32), 8, crop_millimetres=(200.0, 300.0), ratio=(1.0, 1.0), **PLAIN)
    for view in draws(recipe, shape, spacing, 20):
        assert sides(view, shape, spacing) == pytest.approx((50.0, 50.0))
        assert abs(view.affine[0][2]) <= 0.5 + 1e-6


def test_two_grids_of_one_object_give_the_same_view():
    def ball(shape, spacing):
        axes = [(torch.arange(n) - (n - 1) / 2) * s for n, s in zip(shape, spacing, strict=True)]
        f, h, w = torch.meshgrid(*axes, indexing="ij")
        return torch.exp(-((f / 14) ** 2 + ((h - 6) / 10) ** 2 + (w / 20) ** 2))

    recipe = ViewRecipe((24, 24), 12, crop_millimetres=(40.0, 40.0), depth_millimetres=(30.0, 30.0), **PLAIN)
    views = []
    for shape, spacing in (((60, 60, 60), (1.0, 1.0, 1.0)), ((24, 80, 40), (2.5, 0.75, 1.5))):
        view = centre_view(shape, recipe, spacing)
        volume = ball(shape, spacing)
        views.append(apply_view(window(volume, view), view))
    torch.testing.assert_close(views[0], views[1], atol=0.02, rtol=0)
    assert views[0].max() > 0.9


def test_rotation_keeps_right_angles_in_millimetres():
    shape, spacing = (9, 40, 90), (1.0, 3.0, 0.7)
    for view in draws(ViewRecipe((32, 32), 8, rotation=180.0), shape, spacing, 50):
        half_extent = torch.tensor([[shape[2] * spacing[2] / 2], [shape[1] * spacing[1] / 2]])
        across, down = (torch.tensor(view.affine)[:, :2] * half_extent).T
        assert float(across @ down) / float(across.norm() * down.norm()) == pytest.approx(0, abs=1e-5)


# --- slices


def test_thick_and_thin_slices_lie_at_the_same_depths():
    """A ramp along the slices: the value of a view's slice is its place, whatever the spacing."""
    recipe = ViewRecipe((4, 4), 10, area=(1.0, 1.0), ratio=(1.0, 1.0), depth_millimetres=(40.0, 40.0), **PLAIN)
    for spacing in (0.5, 1.0, 2.0, 4.0, 5.0):
        count = round(100 / spacing)
        ramp = ((torch.arange(count) + 0.5) / count).view(-1, 1, 1).expand(count, 4, 4)
        view = centre_view(ramp.shape, recipe, (spacing, 1.0, 1.0))
        result = apply_view(window(ramp, view), view)[:, 0, 0, 0]
        torch.testing.assert_close(result, torch.linspace(0.32, 0.68, 10), atol=1e-4, rtol=0)


def test_slices_are_interpolated_as_by_a_loop(random_volume, whole):
    volume = random_volume(9, 3, 3)
    for start, step, count in ((0.3, 0.4, 8), (1.1, 1.0, 7), (0.7, 2.5, 3)):
        view = whole(volume.shape, resampled=(count, start, step))
        result = apply_view(volume, view)
        for index in range(count):
            place, total, expected = start + index * step, 0.0, torch.zeros(3, 3)
            for slice_ in range(9):
                weight = max(0.0, 1 - abs(place - slice_) / max(step, 1.0))
                total, expected = total + weight, expected + weight * volume[slice_]
            torch.testing.assert_close(result[index, 0], expected / total)
        assert result[count:].isnan().all()


def test_a_window_holds_every_slice_that_has_a_part():
    """The window alone gives what the whole volume would."""
    generator = torch.Generator().manual_seed(0)
    volume = torch.rand(40, 2, 2, generator=generator)
    recipe = ViewRecipe((2, 2), 12, area=(1.0, 1.0), ratio=(1.0, 1.0), depth_millimetres=(5.0, 60.0), **PLAIN)
    for _ in range(100):
        view = draw_view(recipe, (40, 2, 2), generator, (1.2, 1.0, 1.0))
        count, start, step = view.resampled
        in_whole = ViewParameters((2, 2), 12, 0, 40, resampled=(count, start + view.first_slice, step))
        assert view.slices < 40 or step * count > 36
        torch.testing.assert_close(
            apply_view(window(volume, view), view), apply_view(volume, in_whole), atol=1e-5, rtol=0, equal_nan=True
        )


@pytest.mark.parametrize(("count", "step", "existing"), [(64, 1.0, 12), (6, 1.0, 6), (6, 0.5, 12), (6, 9.0, 1)])
def test_a_short_scan_leaves_slices_missing_instead_of_being_stretched(count, step, existing):
    for offset in (0.0, 0.5, 1.0):
        places = place_slices(count, 12, step, offset)
        assert places.count == existing
        first = places.first + places.start
        last = first + (existing - 1) * step
        assert first == pytest.approx(count - 1 - last) or offset != 0.5  # in the middle
        assert first - step / 2 >= -0.5 - 1e-6 or existing == 1  # whole slabs inside the volume
        assert last + step / 2 <= count - 0.5 + 1e-6 or existing == 1
        assert places.first >= 0
        assert places.first + places.slices <= count


def test_depths_are_drawn_from_their_whole_range_and_from_everywhere():
    recipe = ViewRecipe((8, 8), 10, depth_millimetres=(20.0, 40.0))
    views = draws(recipe, (100, 8, 8), (1.0, 1.0, 1.0))
    steps = torch.tensor([view.resampled[2] for view in views])
    assert 2.0 <= steps.min() < 2.1
    assert 3.9 < steps.max() <= 4.0
    starts = [view.first_slice + view.resampled[1] for view in views]
    assert min(starts) < 3
    assert max(starts) > 70


def test_reversed_slices_are_the_same_slices(random_volume):
    volume = random_volume(9, 4, 4)
    recipe = ViewRecipe((4, 4), 6, depth_millimetres=(5.0, 8.0), area=(1.0, 1.0), ratio=(1.0, 1.0), **PLAIN)
    view = draws(recipe, (9, 4, 4), (1.0, 1.0, 1.0), 1)[0]
    straight = apply_view(window(volume, view), view)
    flipped = replace(view, flip_slices=True)
    existing = view.resampled[0]
    assert torch.equal(apply_view(window(volume, view), flipped)[:existing], straight[:existing].flip(0))


def test_without_a_spacing_millimetres_are_refused():
    recipe = ViewRecipe(crop_millimetres=(50.0, 60.0), depth_millimetres=(20.0, 40.0))
    message = (
        "crop_millimetres and depth_millimetres need the size of the volume's voxels, and its spacing is not known"
    )
    with pytest.raises(ValueError, match=message):
        draw_view(recipe, (9, 8, 8), torch.Generator())
    with pytest.raises(ValueError, match="fill in the spacing of its row in the manifest"):
        centre_view((9, 8, 8), recipe)
