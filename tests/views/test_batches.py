"""Views in batches, against `apply_view` volume by volume."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from vissl_jointssl.manifest import as_unit_interval
from vissl_jointssl.views import (
    AnyParameters,
    AnyRecipe,
    ReleasedRecipe,
    ViewRecipe,
    apply_view,
    draw_view,
    least_window,
    make_views,
    pack_windows,
    window,
)
from vissl_jointssl.views.batches import unit_interval
from vissl_jointssl.views.released.parameters import TRANSFORMS, Noise

RECIPES: dict[str, AnyRecipe] = {
    "crop": ViewRecipe((12, 10), 6, rotation=180, blur=(0.5, 3.0), noise=0.3),
    "millimetres": ViewRecipe((12, 10), 6, crop_millimetres=(20.0, 60.0), depth_millimetres=(4.0, 30.0)),
    "released": ReleasedRecipe((12, 10), 6),
}
SHAPES = ((9, 20, 18), (3, 64, 11), (6, 12, 10), (30, 41, 57))
STORED = (np.uint8, np.uint16, np.float16, np.float32)


def _stored(shape: tuple[int, ...], kind: type) -> np.ndarray:
    values = np.random.default_rng(sum(shape)).random(shape)
    return (values * np.iinfo(kind).max).astype(kind) if kind in (np.uint8, np.uint16) else values.astype(kind)


def _one_by_one(volumes: list[np.ndarray], views: list[AnyParameters]) -> Tensor:
    cut = [torch.from_numpy(as_unit_interval(window(*pair))) for pair in zip(volumes, views, strict=True)]
    return torch.stack([apply_view(*pair) for pair in zip(cut, views, strict=True)])


def _draw(recipe: AnyRecipe, volumes: list[np.ndarray]) -> list[AnyParameters]:
    generator = torch.Generator().manual_seed(0)
    return [draw_view(recipe, volume.shape, generator, spacing=(2.5, 1.0, 1.2)) for volume in volumes]


def _cut(volumes: list[np.ndarray], views: list[AnyParameters]) -> list[Tensor]:
    return [torch.from_numpy(np.array(window(*pair))) for pair in zip(volumes, views, strict=True)]


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("channels", [(), (2,)])
def test_a_batch_equals_its_elements_one_by_one(recipe: str, channels: tuple[int, ...]) -> None:
    volumes = [_stored((*channels, *shape), kind) for kind in STORED for shape in SHAPES]
    views = _draw(RECIPES[recipe], volumes)
    windows = [least_window(*pair) for pair in zip(_cut(volumes, views), views, strict=True)]
    together = make_views(pack_windows(windows), views)
    assert together.shape == (16, 6, len(channels) + 1, 12, 10)
    torch.testing.assert_close(together, _one_by_one(volumes, views), atol=5e-6, rtol=0, equal_nan=True)


def test_views_whose_slices_are_missing_do_not_change_the_others() -> None:
    volumes = [_stored(shape, np.uint16) for shape in SHAPES[:3]]
    views = _draw(RECIPES["crop"], volumes)
    together = make_views(_cut(volumes, views), views)
    assert together.isnan().all(dim=(2, 3, 4)).sum(dim=1).tolist() == [0, 3, 0]
    assert not together[:, :3].isnan().any()


@pytest.mark.parametrize("kind", STORED)
def test_what_is_stored_becomes_the_same_numbers_as_in_the_cache(kind: type) -> None:
    stored = _stored((2, 5, 7), kind)
    assert torch.equal(unit_interval(torch.from_numpy(stored)), torch.from_numpy(as_unit_interval(stored)))


def test_packed_windows_come_out_as_they_went_in_and_begin_where_any_type_may() -> None:
    windows = [torch.from_numpy(_stored(shape, kind)) for kind in STORED for shape in ((1, 3, 5), (2, 2, 7, 1))]
    packed = pack_windows(windows)
    assert len(packed) == 8
    assert packed.memory.dtype == torch.uint8
    for number, given in enumerate(windows):
        assert packed[number].dtype == given.dtype
        assert torch.equal(packed[number].float(), given.float())
        assert packed[number].data_ptr() % given.element_size() == 0


def test_only_windows_far_finer_than_their_view_are_pooled_before_they_travel() -> None:
    recipe = ViewRecipe((16, 16), 4, area=(1.0, 1.0), ratio=(1.0, 1.0), rotation=0.0)
    fine, coarse = (torch.from_numpy(_stored((4, side, side), np.uint16)) for side in (64, 24))
    view = draw_view(recipe, fine.shape, torch.Generator())
    sent = least_window(fine, view)
    assert (sent.dtype, sent.shape) == (torch.float32, (4, 16, 16))
    expected = as_unit_interval(fine.numpy()).reshape(4, 16, 4, 16, 4).mean(axis=(2, 4))
    torch.testing.assert_close(sent, torch.from_numpy(expected), atol=1e-6, rtol=0)
    assert least_window(coarse, draw_view(recipe, coarse.shape, torch.Generator())) is coarse


def test_noise_of_the_device_has_the_drawn_deviation_and_seed() -> None:
    flat = torch.full((8, 32, 32), 0.5)
    released = draw_view(ReleasedRecipe((32, 32), 8), flat.shape, torch.Generator())
    views = [replace(released, transform=Noise(0.1, seed)) for seed in (1, 1, 2)]
    first, again, other = make_views([flat] * 3, views, same_noise=False)
    assert first.std().item() == pytest.approx(0.1, rel=0.05)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_views_of_two_kinds_are_not_one_batch() -> None:
    volume = _stored((6, 12, 10), np.uint8)
    views = [_draw(RECIPES[name], [volume])[0] for name in ("crop", "released")]
    with pytest.raises(ValueError, match=r"2 windows and 2 views of kinds .*Released.*; expected one kind"):
        make_views(_cut([volume, volume], views), views)
    with pytest.raises(ValueError, match="1 windows and 2 views"):
        make_views(_cut([volume], views[:1]), [views[0], views[0]])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", ["crop", *TRANSFORMS])
def test_a_gpu_makes_the_same_views(name: str) -> None:
    recipe = RECIPES["crop"] if name == "crop" else ReleasedRecipe((12, 10), 6, transforms=(name,))
    volumes = [_stored(shape, np.uint16) for shape in SHAPES]
    views = _draw(recipe, volumes)
    packed = pack_windows(_cut(volumes, views)).pin_memory().to(torch.device("cuda"))
    on_gpu = make_views(packed, views).cpu()
    torch.testing.assert_close(on_gpu, _one_by_one(volumes, views), atol=1e-4, rtol=0, equal_nan=True)


def test_windows_are_not_changed(random_volume: Callable[..., Tensor]) -> None:
    windows = [random_volume(6, 12, 10, seed=seed) for seed in range(3)]
    before = [one.clone() for one in windows]
    views = _draw(RECIPES["crop"], [one.numpy() for one in windows])
    views[0] = replace(views[0], affine=((1.0, 0.0, 0.0), (0.0, 1.0, 0.0)), blur=0.0, flip_slices=False)
    make_views(windows, views).mul_(0)
    assert all(torch.equal(one, copy) for one, copy in zip(windows, before, strict=True))
