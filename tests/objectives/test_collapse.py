"""Measures of collapse, against loops and numpy written from their definitions."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
import torch
from torch import Tensor

from vissl_jointssl.objectives.collapse import (
    Agreement,
    agreement,
    effective_rank,
    marginal_error,
    mean_cosine,
    measure_collapse,
    recognised,
    usage_entropy,
)


def _embeddings(count: int, width: int, seed: int = 0) -> Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


# --- effective rank


@pytest.mark.parametrize(("count", "width"), [(7, 30), (30, 7), (12, 12), (1, 5), (5, 1)])
def test_the_effective_rank_is_exp_of_the_entropy_of_the_singular_values(count: int, width: int) -> None:
    embeddings = _embeddings(count, width)
    values = np.linalg.svd(embeddings.double().numpy(), compute_uv=False)
    shares = [value / values.sum() for value in values]
    entropy = -sum(share * math.log(share) for share in shares)
    assert effective_rank(embeddings) == pytest.approx(math.exp(entropy), rel=1e-6)


def test_orthogonal_volumes_have_full_rank_and_equal_ones_rank_one() -> None:
    assert effective_rank(torch.eye(6, 40)) == pytest.approx(6)
    assert effective_rank(torch.eye(6, 40).repeat(3, 1)) == pytest.approx(6)
    equal = _embeddings(1, 640).expand(256, -1)
    assert effective_rank(equal) == pytest.approx(1, abs=1e-4)
    assert effective_rank(equal.half()) == pytest.approx(1, abs=1e-4)


def test_the_effective_rank_knows_neither_order_nor_scale_nor_axes() -> None:
    embeddings = _embeddings(9, 20).double()
    rotation = torch.linalg.qr(_embeddings(20, 20, seed=1).double()).Q
    order = torch.randperm(9, generator=torch.Generator().manual_seed(2))
    assert effective_rank(7 * embeddings[order] @ rotation) == pytest.approx(effective_rank(embeddings), rel=1e-9)


def test_the_effective_rank_of_nothing_is_zero_and_of_nan_is_nan() -> None:
    assert effective_rank(torch.zeros(4, 3)) == 0
    for wrong in (math.nan, math.inf):
        embeddings = _embeddings(6, 9)
        embeddings[2, 3] = wrong
        assert math.isnan(effective_rank(embeddings))


# --- mean cosine


def test_the_mean_cosine_is_the_mean_over_all_pairs_of_different_volumes() -> None:
    embeddings = _embeddings(6, 4).double()
    cosines = [
        float(embeddings[i] @ embeddings[j] / embeddings[i].norm() / embeddings[j].norm())
        for i in range(6)
        for j in range(6)
        if i != j
    ]
    assert mean_cosine(embeddings) == pytest.approx(sum(cosines) / len(cosines))


def test_the_mean_cosine_is_one_for_equal_volumes_whatever_their_lengths() -> None:
    lengths = torch.tensor([[1.0], [2.0], [5.0]])
    assert mean_cosine(lengths * _embeddings(1, 640)) == pytest.approx(1)
    assert mean_cosine(torch.eye(5)) == pytest.approx(0, abs=1e-12)
    assert mean_cosine(torch.tensor([[1.0, 0], [-1, 0]])) == pytest.approx(-1)


def test_the_mean_cosine_of_nan_is_nan() -> None:
    assert math.isnan(mean_cosine(torch.tensor([[1.0, math.nan], [1, 1]])))


def test_one_volume_has_no_pair() -> None:
    with pytest.raises(ValueError, match=r"embeddings must be \(n, D\) with n of at least 2, got \(1, 3\)"):
        mean_cosine(torch.ones(1, 3))
    with pytest.raises(ValueError, match=r"n of at least 1, got \(0, 3\); gather more volumes first"):
        effective_rank(torch.ones(0, 3))


# --- usage


def test_the_usage_entropy_is_that_of_a_count() -> None:
    assigned = torch.randint(5, (40,), generator=torch.Generator().manual_seed(0))
    shares = [count / 40 for count in Counter(assigned.tolist()).values()]
    assert usage_entropy(assigned, 5) == pytest.approx(-sum(share * math.log(share) for share in shares))
    assert usage_entropy(assigned, 3000) == usage_entropy(assigned, 5)


def test_the_usage_entropy_is_ln_k_when_even_and_zero_when_one_takes_all() -> None:
    assert usage_entropy(torch.arange(8).repeat(3), 8) == pytest.approx(math.log(8))
    assert usage_entropy(torch.full((9,), 4), 8) == 0
    assert usage_entropy(torch.tensor([2]), 8) == 0


def test_the_usage_entropy_does_not_depend_on_names() -> None:
    assigned = torch.tensor([0, 0, 1, 2, 2, 2])
    assert usage_entropy(torch.tensor([3, 1, 0])[assigned], 4) == pytest.approx(usage_entropy(assigned, 4))


def test_a_prototype_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="assignments go from 0 to 4, but there are 4 prototypes, from 0 on"):
        usage_entropy(torch.tensor([0, 4]), 4)
    with pytest.raises(ValueError, match="assignments go from -1 to 0"):
        usage_entropy(torch.tensor([0, -1]), 4)
    with pytest.raises(ValueError, match=r"assignments must be \(n,\) with at least one volume, got \(0,\)"):
        usage_entropy(torch.tensor([], dtype=torch.long), 4)


# --- marginals


def test_the_marginal_error_is_the_mass_that_is_with_the_wrong_prototype() -> None:
    codes = torch.rand(2, 6, 5, generator=torch.Generator().manual_seed(0)).softmax(dim=-1)
    too_much = 0.0
    for prototype in range(5):
        share = sum(float(codes[view, volume, prototype]) for view in range(2) for volume in range(6)) / 12
        too_much += max(0.0, share - 1 / 5)
    assert marginal_error(codes) == pytest.approx(too_much)


def test_the_marginal_error_is_zero_when_even_and_largest_when_one_takes_all() -> None:
    assert marginal_error(torch.eye(4)) == pytest.approx(0)
    assert marginal_error(torch.full((3, 4), 0.25)) == pytest.approx(0)
    assert marginal_error(torch.tensor([[0.0, 1, 0, 0]])) == pytest.approx(3 / 4)


def test_the_marginal_error_of_ranks_means_is_that_of_all_their_codes() -> None:
    codes = torch.rand(4, 6, 5, generator=torch.Generator().manual_seed(0)).softmax(dim=-1)
    of_ranks = torch.stack([codes[:2].mean(dim=(0, 1)), codes[2:].mean(dim=(0, 1))])
    assert marginal_error(of_ranks) == pytest.approx(marginal_error(codes), rel=1e-6)


def test_no_code_has_no_marginal() -> None:
    with pytest.raises(ValueError, match=r"codes must be \(\.\.\., K\) with at least one row, got \(0, 4\)"):
        marginal_error(torch.zeros(0, 4))


# --- agreement


def test_agreement_and_its_chance_level_are_those_of_loops() -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randint(4, (2, 30), generator=generator)
    second[:15] = first[:15]
    pairs = list(zip(first.tolist(), second.tolist(), strict=True))
    share = sum(a == b for a, b in pairs) / 30
    chance = sum(a == b for a, _ in pairs for _, b in pairs) / 30**2
    found = agreement(first, second)
    assert found == (pytest.approx(share), pytest.approx(chance))
    assert found.above_chance == pytest.approx((share - chance) / (1 - chance))


def test_views_that_always_agree_are_one_above_chance_and_strangers_zero() -> None:
    names = torch.arange(6).repeat(4)
    assert agreement(names, names).above_chance == pytest.approx(1)
    assert agreement(names, names).chance == pytest.approx(1 / 6)
    generator = torch.Generator().manual_seed(0)
    strangers = agreement(*torch.randint(6, (2, 20000), generator=generator))
    assert strangers.above_chance == pytest.approx(0, abs=0.02)


def test_agreeing_on_the_only_prototype_in_use_means_nothing() -> None:
    found = agreement(torch.full((9,), 3), torch.full((9,), 3))
    assert found == Agreement(share=1, chance=1)
    assert found.above_chance == 0


def test_views_of_different_numbers_of_volumes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"one prototype per volume, \(n,\), got \(2,\) and \(3,\)"):
        agreement(torch.zeros(2).long(), torch.zeros(3).long())


# --- all of them


def test_one_look_holds_every_measure() -> None:
    embeddings, assigned = _embeddings(6, 4), torch.tensor([0, 1, 2, 0, 1, 2])
    pairs = torch.stack([assigned, assigned.flip(0)], dim=1)
    codes = torch.rand(2, 6, 5).softmax(dim=-1)
    look = measure_collapse(embeddings, assigned, pairs, codes, 5, torch.tensor([0.2, 0.8]))
    assert (look.volumes, look.prototypes) == (6, 5)
    assert look.effective_rank == effective_rank(embeddings)
    assert look.mean_cosine == mean_cosine(embeddings)
    assert look.usage_entropy == usage_entropy(assigned, 5)
    assert look.usage_bound == pytest.approx(math.log(5))
    assert look.marginal_error == marginal_error(codes)
    assert (look.agreement, look.agreement_by_chance) == agreement(pairs[:, 0], pairs[:, 1])
    assert look.agreement_above_chance == agreement(pairs[:, 0], pairs[:, 1]).above_chance
    assert look.recognition == pytest.approx(0.5)


def test_few_volumes_cannot_use_all_prototypes() -> None:
    look = measure_collapse(_embeddings(6, 4), torch.arange(6), None, None, prototypes=3000)
    assert look.usage_entropy == pytest.approx(look.usage_bound) == pytest.approx(math.log(6))
    assert look.marginal_error is look.agreement is look.agreement_above_chance is look.recognition is None


def test_recognition_is_that_of_loops_over_strangers() -> None:
    first, second = _embeddings(7, 5), _embeddings(7, 5, seed=1)
    second[3] = 2 * first[3]  # surely its own
    second[5] = second[2]
    cosine = torch.nn.functional.cosine_similarity
    for volume, share in enumerate(recognised(first, second).tolist()):
        own = cosine(first[volume], second[volume], dim=0)
        others = [cosine(first[volume], second[other], dim=0) for other in range(7) if other != volume]
        beaten = sum(1.0 if other < own - 1e-9 else 0.5 if abs(other - own) < 1e-6 else 0.0 for other in others)
        assert share == pytest.approx(beaten / 6)


def test_volumes_are_always_told_apart_by_equal_views_and_by_chance_by_random_or_alike_ones() -> None:
    views = _embeddings(40, 16)
    assert recognised(views, 3 * views).tolist() == [1.0] * 40
    assert recognised(-views, views).tolist() == [0.0] * 40
    assert recognised(torch.ones(5, 3), torch.ones(5, 3)).tolist() == [0.5] * 5
    strangers = recognised(_embeddings(400, 16), _embeddings(400, 16, seed=1))
    assert float(strangers.mean()) == pytest.approx(0.5, abs=0.06)


def test_a_volume_without_strangers_is_told_from_nobody() -> None:
    alone = recognised(_embeddings(1, 4), _embeddings(1, 4))
    assert alone.isnan().tolist() == [True]
    look = measure_collapse(_embeddings(4, 4), torch.arange(4), None, None, 5, alone)
    assert look.recognition is None
    look = measure_collapse(_embeddings(4, 4), torch.arange(4), None, None, 5, torch.tensor([1.0, math.nan, 0.5]))
    assert look.recognition == 0.75
