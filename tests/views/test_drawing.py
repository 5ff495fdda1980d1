from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import pytest
import torch

from vissl_jointssl.views import ViewParameters, ViewRecipe, centre_view, draw_view

RECIPE = ViewRecipe((32, 48), 8)
SHAPE = (20, 60, 80)


def draws(recipe: ViewRecipe, shape: tuple[int, int, int] = SHAPE, count: int = 2000) -> list[ViewParameters]:
    generator = torch.Generator().manual_seed(0)
    return [draw_view(recipe, shape, generator) for _ in range(count)]


def in_pixels(view: ViewParameters) -> torch.Tensor:
    """The view's two edges as columns in slice pixels: how far its width and its height reach, 2x2 of (x, y)."""
    height, width = SHAPE[1:]
    return torch.tensor(view.affine)[:, :2] * torch.tensor([[width], [height]])


def test_equal_seeds_give_equal_views_and_later_draws_differ():
    assert draws(RECIPE, count=5) == draws(RECIPE, count=5)
    assert len(set(draws(RECIPE, count=50))) == 50


def test_nothing_but_the_generator_is_a_source_of_chance():
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = draws(RECIPE, count=3)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert draws(RECIPE, count=3) == first


def test_crop_areas_fill_their_range_evenly():
    views = draws(ViewRecipe((32, 48), 8, area=(0.2, 0.6), ratio=(0.9, 1.1)))
    areas = torch.stack([in_pixels(view).det().abs() / (60 * 80) for view in views])
    assert areas.min() >= 0.2 - 1e-6
    assert areas.max() <= 0.6 + 1e-6
    # Uniform: quartiles of 2000 draws lie within a few standard errors (0.4 * 0.01) of the exact ones.
    quartiles = torch.quantile(areas, torch.tensor([0.25, 0.5, 0.75]))
    assert (quartiles - torch.tensor([0.3, 0.4, 0.5])).abs().max() < 0.02


def test_upright_crops_lie_inside_the_slice_and_reach_its_edges():
    views = draws(ViewRecipe((32, 48), 8, rotation=0.0))
    corners = torch.cat(
        [torch.tensor(view.affine) @ torch.tensor([[-1.0, 1, 1], [1.0, 1, 1], [1.0, -1, 1]]).T for view in views], dim=1
    )
    assert corners.abs().max() <= 1 + 1e-6
    assert corners.amax(dim=1).min() > 0.99
    assert corners.amin(dim=1).max() < -0.99


def test_the_ratio_is_relative_to_the_slice_and_even_on_the_log_scale():
    views = draws(ViewRecipe((32, 48), 8, area=(0.1, 0.3), ratio=(0.8, 1.25)))
    ratios = [float(edges[:, 1].norm() / edges[:, 0].norm()) / (60 / 80) for edges in map(in_pixels, views)]
    assert 0.8 - 1e-6 <= min(ratios) < 0.82
    assert 1.22 < max(ratios) <= 1.25 + 1e-6
    assert sum(ratio < 1 for ratio in ratios) / 2000 == pytest.approx(0.5, abs=0.05)


def test_rotation_keeps_right_angles_in_slices_that_are_not_square():
    views = draws(ViewRecipe((32, 48), 8, rotation=180.0), count=200)
    angles = []
    for view in views:
        across, down = in_pixels(view).T
        assert float(across @ down) / float(across.norm() * down.norm()) == pytest.approx(0, abs=1e-5)
        angles.append(math.atan2(float(across[1]), float(across[0])))
    assert max(angles) > 3
    assert min(angles) < -3


def test_every_window_of_slices_is_equally_likely():
    starts = Counter(view.first_slice for view in draws(RECIPE, count=5200))
    assert sorted(starts) == list(range(20 - 8 + 1))
    assert min(starts.values()) > 300  # 400 expected, standard deviation 19


def test_a_short_volume_is_taken_whole():
    assert {(view.first_slice, view.slices) for view in draws(RECIPE, (5, 60, 80), 50)} == {(0, 5)}


def test_mirrors_are_as_frequent_as_said():
    views = draws(ViewRecipe((32, 48), 8, flip_rows=0.0, flip_columns=0.2, flip_slices=1.0, rotation=10.0))
    assert all(view.affine[1][1] > 0 for view in views)
    assert sum(view.affine[0][0] < 0 for view in views) / 2000 == pytest.approx(0.2, abs=0.05)
    assert all(view.flip_slices for view in views)


def test_every_other_number_is_in_its_range_and_as_frequent_as_said():
    views = draws(ViewRecipe((32, 48), 8, blur_probability=0.3))
    assert sum(view.blur > 0 for view in views) / 2000 == pytest.approx(0.3, abs=0.05)
    assert len({view.noise_seed for view in views}) == 2000
    for name, low, high in (
        ("brightness", -0.1, 0.1),
        ("contrast", 0.7, 1.3),
        ("gamma", 0.7, 1.5),
        ("noise", 0.0, 0.05),
    ):
        values = [getattr(view, name) for view in views]
        assert low <= min(values) < low + 0.02 * (high - low)
        assert high - 0.02 * (high - low) < max(values) <= high


def test_changing_one_range_leaves_the_other_draws_of_a_seed():
    wide = replace(RECIPE, rotation=90.0, blur_probability=1.0, area=(0.1, 0.9))
    for first, second in zip(draws(RECIPE, count=20), draws(wide, count=20), strict=True):
        assert (first.first_slice, first.gamma, first.noise_seed) == (
            second.first_slice,
            second.gamma,
            second.noise_seed,
        )


def test_the_centre_view_is_the_whole_slice_of_the_middle_slices():
    assert centre_view(SHAPE, RECIPE) == ViewParameters((32, 48), 8, first_slice=6, slices=8)
    assert centre_view((3, 60, 80), RECIPE) == ViewParameters((32, 48), 8, first_slice=0, slices=3)


@pytest.mark.parametrize("shape", [(4, 4), (0, 4, 4)])
def test_what_is_not_a_volume_is_refused(shape):
    with pytest.raises(ValueError, match=r"expected \(F, H, W\)"):
        draw_view(RECIPE, shape, torch.Generator())
    with pytest.raises(ValueError, match=r"expected \(F, H, W\)"):
        centre_view(shape, RECIPE)
