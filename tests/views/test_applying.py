from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage

from vissl_jointssl.views import (
    MISSING_SLICE,
    ViewParameters,
    ViewRecipe,
    apply_view,
    apply_views,
    centre_view,
    draw_view,
    window,
)

STRONG = ViewRecipe(
    (12, 10),
    5,
    area=(0.1, 1.0),
    rotation=180,
    brightness=0.5,
    contrast=(0.2, 4.0),
    gamma=(0.2, 4.0),
    blur=(0.1, 3.0),
    noise=0.5,
)


def crop(shape, top, left, height, width, angle=0.0):
    """The affine of a crop in pixels of the slice, turned about its centre; x to the right, y down."""
    cos, sin = math.cos(angle), math.sin(angle)
    return (
        (cos * width / shape[2], -sin * height / shape[2], 2 * (left + width / 2) / shape[2] - 1),
        (sin * width / shape[1], cos * height / shape[1], 2 * (top + height / 2) / shape[1] - 1),
    )


def sample_by_hand(plane: torch.Tensor, view: ViewParameters) -> torch.Tensor:
    """Every pixel of the view by a loop: its place in the slice, mirrored at the edge, bilinear."""
    height, width = plane.shape
    result = torch.zeros(view.size)

    def mirrored(position: float, length: int) -> float:
        position = position % (2 * length)  # outer edges of the slice are at 0 and at length
        position = 2 * length - position if position > length else position
        return min(max(position - 0.5, 0), length - 1)

    for row in range(view.size[0]):
        for column in range(view.size[1]):
            place = ((2 * column + 1) / view.size[1] - 1, (2 * row + 1) / view.size[0] - 1, 1)
            x, y = (sum(a * b for a, b in zip(line, place, strict=True)) for line in view.affine)
            h, w = mirrored((y + 1) / 2 * height, height), mirrored((x + 1) / 2 * width, width)
            top, left = min(int(h), height - 2), min(int(w), width - 2)
            share_h, share_w = h - top, w - left
            upper = plane[top, left] * (1 - share_w) + plane[top, left + 1] * share_w
            lower = plane[top + 1, left] * (1 - share_w) + plane[top + 1, left + 1] * share_w
            result[row, column] = upper * (1 - share_h) + lower * share_h
    return result


# --- geometry


@pytest.mark.parametrize(
    ("size", "place"),
    [
        ((9, 5), (2, 2.5, 6, 4, 0.3)),
        ((20, 30), (0, 0, 10, 12, -1.1)),
        ((14, 14), (0.25, 0.5, 3.5, 7.25, 0.0)),
    ],
)
def test_the_affine_pass_agrees_with_a_loop_over_pixels(random_volume, whole, size, place):
    volume = random_volume(3, 10, 12)
    view = whole(volume.shape, size=size, affine=crop(volume.shape, *place))
    result = apply_view(volume, view)[:, 0]
    for slice_ in range(3):
        torch.testing.assert_close(result[slice_], sample_by_hand(volume[slice_], view), atol=2e-5, rtol=0)


def test_drawn_views_agree_with_the_loop_too(random_volume):
    volume = random_volume(5, 11, 14)
    geometry_only = ViewRecipe((12, 15), 5, (0.3, 0.5), rotation=30, gamma=(1, 1), contrast=(1, 1), brightness=0)
    generator = torch.Generator().manual_seed(0)
    for _ in range(10):
        view = draw_view(geometry_only, tuple(volume.shape), generator)
        view = ViewParameters(view.size, 5, 0, 5, view.affine)
        torch.testing.assert_close(apply_view(volume, view)[2, 0], sample_by_hand(volume[2], view), atol=2e-5, rtol=0)


def test_a_crop_on_whole_pixels_is_a_slice_of_the_array(random_volume, whole):
    volume = random_volume(2, 10, 12)
    view = whole(volume.shape, size=(4, 6), affine=crop(volume.shape, 3, 5, 4, 6))
    torch.testing.assert_close(apply_view(volume, view)[:, 0], volume[:, 3:7, 5:11], atol=1e-5, rtol=0)


def test_a_whole_slice_enlarged_agrees_with_torch_interpolate(random_volume, whole):
    volume = random_volume(2, 8, 8)
    expected = torch.nn.functional.interpolate(volume[None], (12, 20), mode="bilinear")[0]
    result = apply_view(volume, whole(volume.shape, size=(12, 20)))
    torch.testing.assert_close(result[:, 0], expected, atol=1e-5, rtol=0)


def test_a_right_angle_turns_columns_to_rows(random_volume, whole):
    volume = random_volume(2, 9, 9)
    turned = apply_view(volume, whole(volume.shape, affine=crop(volume.shape, 0, 0, 9, 9, math.pi / 2)))
    torch.testing.assert_close(turned[:, 0], torch.rot90(volume, 1, dims=(1, 2)), atol=1e-5, rtol=0)


def test_parameters_that_change_nothing_return_the_volume_bit_by_bit(random_volume, whole):
    volume = random_volume(4, 6, 7)
    result = apply_view(volume, whole(volume.shape))
    assert result.shape == (4, 1, 6, 7)
    assert torch.equal(result[:, 0], volume)


@pytest.mark.parametrize(
    ("axis", "changes"),
    [
        (0, {"flip_slices": True}),
        (1, {"affine": ((1.0, 0.0, 0.0), (0.0, -1.0, 0.0))}),
        (2, {"affine": ((-1.0, 0.0, 0.0), (0.0, 1.0, 0.0))}),
    ],
)
def test_flips_reverse_their_axis_exactly_and_undo_themselves(random_volume, whole, axis, changes):
    volume = random_volume(4, 5, 6)
    once = apply_view(volume, whole(volume.shape, **changes))[:, 0]
    assert torch.equal(once, volume.flip(axis))
    assert torch.equal(apply_view(once, whole(volume.shape, **changes))[:, 0], volume)


def test_the_slice_continues_as_its_mirror_image(whole):
    volume = torch.full((1, 16, 16), 0.7)
    turned = apply_view(volume, whole(volume.shape, affine=crop(volume.shape, 0, 0, 16, 16, 0.8)))
    torch.testing.assert_close(turned, torch.full_like(turned, 0.7))


@pytest.mark.parametrize("angle", [0.0, math.pi / 2])
def test_shrinking_averages_instead_of_skipping_pixels(whole, angle):
    stripes = torch.tensor([1.0, 0.0, 0.0, 1.0]).repeat(16).expand(1, 64, 64)  # bilinear alone sees the zeros only
    view = whole(stripes.shape, size=(16, 16), affine=crop(stripes.shape, 0, 0, 64, 64, angle))
    assert (apply_view(stripes, view) - 0.5).abs().max() < 0.01


# --- slices


def test_the_window_is_consecutive_and_starts_where_it_was_drawn():
    volume = (torch.arange(9.0) / 10).view(9, 1, 1).expand(9, 4, 4)
    view = ViewParameters((4, 4), 3, first_slice=6, slices=3)
    assert apply_view(window(volume, view), view)[:, 0, 0, 0].tolist() == pytest.approx([0.6, 0.7, 0.8])
    view = ViewParameters((4, 4), 3, first_slice=6, slices=3, flip_slices=True)
    assert apply_view(window(volume, view), view)[:, 0, 0, 0].tolist() == pytest.approx([0.8, 0.7, 0.6])


def test_the_window_of_a_mapped_array_is_still_mapped(tmp_path):
    np.save(tmp_path / "v.npy", np.zeros((9, 4, 4), np.uint16))
    mapped = np.load(tmp_path / "v.npy", mmap_mode="r")
    part = window(mapped, ViewParameters((4, 4), 3, 2, 3))
    assert isinstance(part, np.memmap)
    assert part.shape == (3, 4, 4)


def test_missing_slices_are_nan_in_every_voxel_and_come_last(random_volume):
    volume = random_volume(3, 20, 18)
    generator = torch.Generator().manual_seed(1)
    for _ in range(20):
        result = apply_view(volume, draw_view(STRONG, (3, 20, 18), generator))
        assert result.shape == (5, 1, 12, 10)
        assert not result[:3].isnan().any()
        assert result[3:].isnan().all()
    assert math.isnan(MISSING_SLICE)


def test_missing_slices_have_no_part_in_the_mean(random_volume, whole):
    volume = random_volume(3, 6, 7)
    changes = {"contrast": 1.5, "brightness": -0.1, "gamma": 0.8}
    short = apply_view(volume, whole(volume.shape, **changes))
    long = apply_view(volume, whole(volume.shape, num_slices=9, **changes))
    torch.testing.assert_close(long[:3], short, atol=1e-6, rtol=0)


# --- grey values


def test_blur_agrees_with_scipy_in_the_plane_and_keeps_slices_apart(random_volume, whole):
    volume = random_volume(3, 12, 14)
    expected = ndimage.gaussian_filter(volume.double().numpy(), (0, 1.3, 1.3), mode="nearest", radius=(0, 4, 4))
    result = apply_view(volume, whole(volume.shape, blur=1.3))[:, 0]
    torch.testing.assert_close(result.double(), torch.from_numpy(expected), atol=1e-5, rtol=0)


def test_a_blur_wider_than_the_view_still_has_its_shape(random_volume, whole):
    assert apply_view(random_volume(1, 3, 3), whole((1, 3, 3), blur=4.0)).std() < 0.1


def test_gamma_then_contrast_about_the_mean_then_brightness(random_volume, whole):
    volume = random_volume(2, 3, 3)
    result = apply_view(volume, whole(volume.shape, gamma=0.7, contrast=1.3, brightness=0.1)).flatten().tolist()
    curved = [value**0.7 for value in volume.flatten().tolist()]
    mean = sum(curved) / len(curved)
    expected = [min(max((value - mean) * 1.3 + mean + 0.1, 0), 1) for value in curved]
    assert result == pytest.approx(expected, abs=1e-6)


def test_noise_has_its_deviation_and_follows_its_seed(whole):
    volume = torch.full((20, 40, 40), 0.5)
    noisy = apply_view(volume, whole(volume.shape, noise=0.05, noise_seed=1))
    assert noisy.std() == pytest.approx(0.05, rel=0.02)
    assert torch.equal(noisy, apply_view(volume, whole(volume.shape, noise=0.05, noise_seed=1)))
    assert not torch.equal(noisy, apply_view(volume, whole(volume.shape, noise=0.05, noise_seed=2)))


def test_values_stay_in_the_unit_interval_whatever_is_drawn(random_volume):
    volume = random_volume(9, 20, 18).round()
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        view = draw_view(STRONG, (9, 20, 18), generator)
        result = apply_view(window(volume, view), view)
        assert result.shape == (5, 1, 12, 10)
        assert result.min() >= 0
        assert result.max() <= 1


# --- as a whole


def test_applying_the_same_parameters_again_gives_the_same_view(random_volume):
    volume = random_volume(5, 20, 18)
    view = draw_view(STRONG, (5, 20, 18), torch.Generator().manual_seed(3))
    first = apply_view(volume, view)
    torch.rand(7)  # chance elsewhere must not matter
    assert torch.equal(apply_view(volume, view), first)


def test_a_batch_of_unlike_volumes_equals_its_elements_one_by_one(random_volume):
    volumes = [random_volume(9, 20, 18), random_volume(3, 30, 11), random_volume(5, 12, 10)]
    generator = torch.Generator().manual_seed(0)
    views = [draw_view(STRONG, tuple(volume.shape), generator) for volume in volumes]
    together = apply_views(volumes, views)
    assert together.shape == (3, 5, 1, 12, 10)
    for volume, view, result in zip(volumes, views, together, strict=True):
        torch.testing.assert_close(apply_view(window(volume, view), view), result, atol=0, rtol=0, equal_nan=True)


def test_the_volume_itself_is_not_changed(random_volume):
    volume = random_volume(5, 12, 10)
    before = volume.clone()
    generator = torch.Generator().manual_seed(0)
    for view in [centre_view((5, 12, 10), STRONG), *(draw_view(STRONG, (5, 12, 10), generator) for _ in range(5))]:
        apply_view(volume, view).mul_(0)
    assert torch.equal(volume, before)


def test_what_does_not_fit_together_is_refused(random_volume, whole):
    volume, view = random_volume(3, 4, 4), whole((3, 4, 4))
    with pytest.raises(ValueError, match=r"slices are \(3, 4, 4\) of torch.uint8; expected .* in \[0, 1\]"):
        apply_view((volume * 255).to(torch.uint8), view)
    with pytest.raises(ValueError, match=r"the view has 3 slices, got 2; cut them out with window\(\)"):
        apply_view(volume[:2], view)
    with pytest.raises(ValueError, match="2 volumes and 1 views"):
        apply_views([volume, volume], [view])
    with pytest.raises(ValueError, match=r"views of sizes \[\(2, 4, 4\), \(3, 4, 4\)\]; expected one size"):
        apply_views([volume, volume], [view, whole((3, 4, 4), num_slices=2)])


# --- channels


def test_every_channel_sees_the_same_geometry_and_its_own_mean(random_volume, whole):
    volume = random_volume(3, 5, 20, 18)
    generator = torch.Generator().manual_seed(0)
    for _ in range(10):
        view = replace(draw_view(STRONG, tuple(volume.shape), generator), noise=0.0)
        together = apply_view(window(volume, view), view)
        assert together.shape == (5, 3, 12, 10)
        for channel in range(3):
            alone = apply_view(window(volume[channel], view), view)
            torch.testing.assert_close(together[:, channel : channel + 1], alone, atol=1e-5, rtol=0, equal_nan=True)


def test_noise_differs_between_channels(whole):
    volume = torch.full((2, 3, 8, 8), 0.5)
    noisy = apply_view(volume, whole((3, 8, 8), noise=0.1, noise_seed=1))
    assert not torch.equal(noisy[:, 0], noisy[:, 1])
