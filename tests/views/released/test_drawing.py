"""The drawn numbers have TorchIO's ranges and distributions."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch
import torchio
from scipy import stats

from vissl_jointssl.views import ReleasedRecipe, draw_view
from vissl_jointssl.views.released.parameters import TRANSFORMS

SHAPE = (20, 24, 28)
DRAWS = 600


def drawn(name: str, shape: tuple[int, ...] = SHAPE, count: int = DRAWS) -> list:
    generator = torch.Generator().manual_seed(0)
    recipe = ReleasedRecipe((16, 16), 8, transforms=(name,))
    return [draw_view(recipe, shape, generator).transform for _ in range(count)]


def alike(ours: list[float], theirs: list[float]) -> bool:
    """Two samples that a two-sided Kolmogorov-Smirnov test does not tell apart, with seeds that are fixed."""
    return stats.ks_2samp(ours, theirs).pvalue > 0.01


@pytest.fixture(autouse=True)
def torchios_chance():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def test_each_of_the_seven_is_equally_likely():
    generator = torch.Generator().manual_seed(0)
    recipe = ReleasedRecipe((16, 16), 8)
    counts = Counter(type(draw_view(recipe, SHAPE, generator).transform).__name__ for _ in range(2100))
    assert len(counts) == len(TRANSFORMS) == 7
    assert all(abs(count - 300) < 4 * math.sqrt(300) for count in counts.values())


def test_flips_are_drawn_as_torchios():
    theirs = torchio.RandomFlip()
    assert theirs.axes == (0,)
    frequency = sum(bool(theirs.get_params(theirs.flip_probability)[0]) for _ in range(DRAWS)) / DRAWS
    ours = [transform.axes for transform in drawn("flip")]
    assert set(ours) == {(0,), ()}
    assert ours.count((0,)) / DRAWS == pytest.approx(frequency, abs=0.08)


def test_affine_maps_are_drawn_as_torchios():
    theirs = torchio.RandomAffine()
    assert (theirs.translation, theirs.center, theirs.default_pad_value) == ((0,) * 6, "image", "minimum")
    samples = [theirs.get_params(theirs.scales, theirs.degrees, theirs.translation, False) for _ in range(DRAWS)]
    ours = drawn("affine")
    for axis in range(3):
        assert alike([one.scales[axis] for one in ours], [float(one[0][axis]) for one in samples])
        assert alike([one.degrees[axis] for one in ours], [float(one[1][axis]) for one in samples])
    assert len({one.scales[0] / one.scales[1] for one in ours}) == DRAWS  # not isotropic


def test_anisotropies_are_drawn_as_torchios():
    theirs = torchio.RandomAnisotropy()
    samples = [theirs.get_params(theirs.axes, theirs.downsampling_range) for _ in range(DRAWS)]
    ours = drawn("anisotropy")
    assert alike([one.factor for one in ours], [factor for _, factor in samples])
    for axis in range(3):
        assert sum(one.axis == axis for one in ours) / DRAWS == pytest.approx(1 / 3, abs=0.08)


def test_noises_are_drawn_as_torchios():
    theirs = torchio.RandomNoise()
    samples = [theirs.get_params(theirs.mean_range, theirs.std_range) for _ in range(DRAWS)]
    ours = drawn("noise")
    assert {mean for mean, _, _ in samples} == {0.0}
    assert alike([one.deviation for one in ours], [deviation for _, deviation, _ in samples])
    assert len({one.seed for one in ours}) == DRAWS


def test_blurs_are_drawn_as_torchios():
    theirs = torchio.RandomBlur()
    samples = [theirs.get_params(theirs.std_ranges) for _ in range(DRAWS)]
    ours = drawn("blur")
    for axis in range(3):
        assert alike([one.deviations[axis] for one in ours], [one[axis] for one in samples])


def test_bias_fields_are_drawn_as_torchios():
    theirs = torchio.RandomBiasField()
    assert theirs.order == 3
    samples = [theirs.get_params(theirs.order, theirs.coefficients_range) for _ in range(60)]
    ours = drawn("bias_field", count=60)
    assert {len(one.coefficients) for one in ours} == {len(one) for one in samples} == {20}
    assert alike([x for one in ours for x in one.coefficients], [x for one in samples for x in one])


def test_gammas_are_drawn_as_torchios_one_for_each_channel():
    theirs = torchio.RandomGamma()
    samples = [theirs.get_params(theirs.log_gamma_range) for _ in range(DRAWS)]
    ours = drawn("gamma", shape=(2, *SHAPE))
    assert alike([one.exponents[0] for one in ours], samples)
    assert max(abs(math.log(one.exponents[0])) for one in ours) <= 0.3
    assert all(len(one.exponents) == 2 and one.exponents[0] != one.exponents[1] for one in ours)


def test_equal_seeds_give_equal_views():
    recipe = ReleasedRecipe((16, 16), 8)
    first, again = ([draw_view(recipe, SHAPE, g) for _ in range(20)] for g in map(_seeded, (5, 5)))
    assert first == again


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
