from __future__ import annotations

import numpy as np
import pytest
import torch
import torchio

from vissl_jointssl.views import ReleasedRecipe, apply_view, apply_views, centre_view, draw_view, window
from vissl_jointssl.views.released.parameters import TRANSFORMS

RECIPE = ReleasedRecipe((15, 18), 8)


@pytest.mark.parametrize("shape", [(1, 8, 15, 18), (2, 13, 9, 18), (1, 3, 20, 11), (3, 30, 40, 7)])
def test_crop_or_pad_is_torchios(random_volume, shape):
    volume = random_volume(*shape)
    expected = torchio.CropOrPad((8, 15, 18))(volume)
    view = centre_view(volume.shape, RECIPE)
    assert torch.equal(apply_view(window(volume, view), view).transpose(0, 1), expected)


def test_padded_slices_are_black_and_exist(random_volume):
    volume = random_volume(3, 15, 18)
    view = centre_view(volume.shape, RECIPE)
    result = apply_view(window(volume, view), view)
    assert result.shape == (8, 1, 15, 18)
    assert not result.isnan().any()
    assert result.flatten(1).any(dim=1).tolist() == [False] * 3 + [True] * 3 + [False] * 2


def test_the_window_of_a_mapped_array_is_still_mapped(tmp_path):
    np.save(tmp_path / "v.npy", np.zeros((2, 20, 30, 9), np.uint16))
    mapped = np.load(tmp_path / "v.npy", mmap_mode="r")
    part = window(mapped, centre_view(mapped.shape, RECIPE))
    assert isinstance(part, np.memmap)
    assert part.shape == (2, 8, 15, 9)


@pytest.mark.parametrize("name", TRANSFORMS)
@pytest.mark.parametrize("shape", [(13, 20, 22), (2, 6, 12, 30)])
def test_every_transform_keeps_the_shape_and_can_be_replayed(random_volume, name, shape):
    volume = random_volume(*shape)
    before = volume.clone()
    recipe = ReleasedRecipe((15, 18), 8, transforms=(name,))
    generator = torch.Generator().manual_seed(3)
    for _ in range(5):
        view = draw_view(recipe, shape, generator, spacing=(2.0, 1.0, 1.0))
        first = apply_view(window(volume, view), view)
        assert first.shape == (8, len(shape) // 4 + 1, 15, 18)
        assert first.isfinite().all()
        torch.rand(7)  # chance elsewhere must not matter
        assert torch.equal(apply_view(window(volume, view), view), first)
    assert torch.equal(volume, before)


def test_a_batch_equals_its_elements_one_by_one(random_volume):
    volumes = [random_volume(9, 20, 18), random_volume(3, 30, 11), random_volume(12, 12, 10)] * 7
    generator = torch.Generator().manual_seed(0)
    views = [draw_view(RECIPE, tuple(volume.shape), generator) for volume in volumes]
    together = apply_views(volumes, views)
    assert together.shape == (21, 8, 1, 15, 18)
    for volume, view, result in zip(volumes, views, together, strict=True):
        assert torch.equal(apply_view(window(volume, view), view), result)


def test_what_does_not_fit_is_refused(random_volume):
    volume = random_volume(13, 20, 22)
    view = centre_view(volume.shape, RECIPE)
    with pytest.raises(ValueError, match=r"the view has \(8, 15, 18\) voxels, got \(13, 20, 22\); cut them out with"):
        apply_view(volume, view)
    with pytest.raises(ValueError, match=r"voxels are \(8, 15, 18\) of torch.uint8; expected .* in \[0, 1\]"):
        apply_view((window(volume, view) * 255).to(torch.uint8), view)
