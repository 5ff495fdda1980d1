"""Stage 2's two baselines, against slow loops."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from vissl_jointssl.objectives.masked_baselines import mean_embedding_distance, neighbour_distance
from vissl_jointssl.objectives.masked_embedding import masked_embedding_loss

VOLUMES, SLICES, WIDTH = 3, 8, 5
# Runs of hidden slices, both borders, and two slices of padding in the last volume.
MASK = torch.tensor([[1, 1, 0, 0, 1, 0, 0, 1], [0, 0, 1, 1, 1, 0, 0, 0], [0, 1, 0, 0, 0, 1, 0, 0]]).bool()
VALID = torch.ones(VOLUMES, SLICES, dtype=torch.bool)
VALID[2, 6:] = False
BASELINES = [mean_embedding_distance, neighbour_distance]


@pytest.fixture
def target() -> Tensor:
    embeddings = torch.randn(VOLUMES, SLICES, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    embeddings[~VALID] = 0
    return embeddings


def _average_distance(target: Tensor, guess: dict[tuple[int, int], Tensor]) -> float:
    distances = [float((target[place] - one).square().sum().sqrt()) for place, one in guess.items()]
    return sum(distances) / len(distances)


def test_the_mean_is_over_all_visible_slices_of_the_batch(target: Tensor) -> None:
    total, count, hidden = torch.zeros(WIDTH, dtype=torch.float64), 0, []
    for volume in range(VOLUMES):
        for place in range(SLICES):
            if MASK[volume, place]:
                hidden.append((volume, place))
            elif VALID[volume, place]:
                total, count = total + target[volume, place], count + 1
    expected = _average_distance(target, dict.fromkeys(hidden, total / count))
    assert mean_embedding_distance(target, MASK, VALID).item() == pytest.approx(expected)


def test_the_neighbours_are_the_nearest_visible_slices_on_either_side(target: Tensor) -> None:
    guess = {}
    for volume in range(VOLUMES):
        visible = [place for place in range(SLICES) if VALID[volume, place] and not MASK[volume, place]]
        for place in MASK[volume].nonzero().flatten().tolist():
            before = [other for other in visible if other < place][-1:]
            after = [other for other in visible if other > place][:1]
            around = [target[volume, other] for other in before + after]
            guess[volume, place] = sum(around[1:], around[0]) / len(around)
    assert neighbour_distance(target, MASK, VALID).item() == pytest.approx(_average_distance(target, guess))


def test_slices_on_a_straight_line_are_the_average_of_their_neighbours() -> None:
    line = torch.arange(8.0)[None, :, None] * torch.ones(3)
    mask = torch.zeros(1, 8, dtype=torch.bool)
    mask[0, [2, 5]] = True
    assert neighbour_distance(line, mask, torch.ones_like(mask)) == 0
    assert mean_embedding_distance(line, mask, torch.ones_like(mask)) > 1


@pytest.mark.parametrize("baseline", BASELINES)
def test_equal_slices_are_guessed_exactly(baseline: Callable[..., Tensor]) -> None:
    target = torch.randn(WIDTH).expand(VOLUMES, SLICES, WIDTH)
    assert baseline(target, MASK, VALID).item() == pytest.approx(0, abs=1e-6)


def test_the_order_of_slices_and_the_frame_do_not_matter_where_they_should_not(target: Tensor) -> None:
    shift, scale = torch.randn(WIDTH, dtype=torch.float64), 3.0
    for baseline in BASELINES:
        moved = baseline(scale * target + shift, MASK, VALID)
        torch.testing.assert_close(moved, scale * baseline(target, MASK, VALID))
    whole = torch.ones_like(VALID)
    full = target + torch.arange(SLICES)[None, :, None]
    reversed_ = neighbour_distance(full.flip(1), MASK.flip(1), whole)
    torch.testing.assert_close(reversed_, neighbour_distance(full, MASK, whole))


@pytest.mark.parametrize("baseline", BASELINES)
def test_neither_padding_nor_a_hidden_slice_is_used_for_a_guess(
    baseline: Callable[..., Tensor], target: Tensor
) -> None:
    known = baseline(target, MASK, VALID)
    other = target.clone()
    other[~VALID] = 100
    torch.testing.assert_close(baseline(other, MASK, VALID), known)
    target[0, 0] = target[0, 1]  # the guess for slice 1 is slice 2, although 0 is nearer and now equal
    assert baseline(target, MASK, VALID) > 0.5


@pytest.mark.parametrize("baseline", BASELINES)
def test_it_is_the_distance_of_the_loss(baseline: Callable[..., Tensor]) -> None:
    target = torch.randn(1, 2, WIDTH)
    mask = torch.tensor([[False, True]])
    copied = masked_embedding_loss(target[:, :1].expand_as(target), target, mask)
    torch.testing.assert_close(baseline(target, mask, torch.ones_like(mask)), copied)


@pytest.mark.parametrize("baseline", BASELINES)
def test_half_precision_is_measured_in_float32(baseline: Callable[..., Tensor], target: Tensor) -> None:
    exact = baseline(target.half().float(), MASK, VALID)
    half = baseline(target.half(), MASK, VALID)
    assert half.dtype == torch.float32
    assert torch.equal(half, exact)


@pytest.mark.parametrize("baseline", BASELINES)
def test_what_cannot_be_guessed_is_refused(baseline: Callable[..., Tensor], target: Tensor) -> None:
    with pytest.raises(ValueError, match=r"volumes \[2\] of the batch hide padding; draw the mask from the valid"):
        baseline(target, MASK | ~VALID, VALID)
    blind = MASK.clone()
    blind[1] = True
    with pytest.raises(ValueError, match=r"volumes \[1\] of the batch have no visible slice to guess from; lower"):
        baseline(target, blind, VALID)
    with pytest.raises(ValueError, match=r"target \(3, 8, 5\), mask \(3, 7\) and valid \(3, 8\) must be"):
        baseline(target, MASK[:, 1:], VALID)
    with pytest.raises(ValueError, match=r"volumes \[0\] of the batch hide no slice"):
        baseline(target, MASK & torch.tensor([[False], [True], [True]]), VALID)
