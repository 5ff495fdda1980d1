from __future__ import annotations

import math
import re

import pytest
import torch
from torch import Tensor

from vissl_jointssl.objectives.sinkhorn import sinkhorn
from vissl_jointssl.objectives.swapped_prediction import swapped_prediction_loss


def loss_slowly(scores: Tensor, codes: Tensor, assign_views: list[int], temperature: float) -> float:
    """Eq. 4 in plain numbers, averaged over samples and over every code and other view."""
    terms = []
    for a, own in enumerate(assign_views):
        for view in range(scores.shape[0]):
            if view == own:
                continue
            for b in range(scores.shape[1]):
                exponentials = [math.exp(value / temperature) for value in scores[view, b].tolist()]
                total = sum(exponentials)
                terms.append(
                    -sum(
                        q * math.log(value / total) for q, value in zip(codes[a, b].tolist(), exponentials, strict=True)
                    )
                )
    return sum(terms) / len(terms)


@pytest.mark.parametrize(("views", "assign_views"), [(2, [0, 1]), (4, [0, 1]), (3, [2]), (3, [2, 0, 1])])
def test_the_loss_equals_a_loop_over_equation_4(views: int, assign_views: list[int]) -> None:
    torch.manual_seed(0)
    scores = torch.randn(views, 5, 7, dtype=torch.float64) / 3
    codes = torch.rand(len(assign_views), 5, 7, dtype=torch.float64).softmax(dim=-1)
    loss = swapped_prediction_loss(scores, codes, assign_views, temperature=0.2)
    assert loss.item() == pytest.approx(loss_slowly(scores, codes, assign_views, 0.2))


@pytest.mark.parametrize("views", [2, 3])
def test_with_sinkhorn_codes_it_equals_vissls_swav_loss(views: int) -> None:
    import vissl_jointssl.plugin  # noqa: F401 - VISSL cannot be imported before it

    # isort: split
    from vissl.losses.swav_loss import SwAVCriterion

    torch.manual_seed(0)
    criterion = SwAVCriterion(
        temperature=0.1,
        crops_for_assign=[0, 1],
        num_crops=views,
        num_iters=3,
        epsilon=0.05,
        use_double_prec=True,
        num_prototypes=[9],
        local_queue_length=0,
        embedding_dim=4,
        temp_hard_assignment_iters=0,
        output_dir="",
    )
    criterion.use_gpu = False
    scores = (torch.rand(views, 6, 9, dtype=torch.float64) * 2 - 1).requires_grad_()
    theirs = criterion(scores.flatten(0, 1), 0)
    codes = torch.stack([sinkhorn(scores[view]) for view in (0, 1)])
    ours = swapped_prediction_loss(scores, codes, [0, 1])
    torch.testing.assert_close(ours.float(), theirs, rtol=1e-6, atol=0)
    gradients = [torch.autograd.grad(loss, scores, retain_graph=True)[0] for loss in (ours, theirs)]
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-8)


def test_codes_get_no_gradient_and_a_single_coded_view_predicts_nothing_of_itself() -> None:
    scores = torch.randn(3, 4, 5, requires_grad=True)
    codes = torch.rand(1, 4, 5, requires_grad=True)
    swapped_prediction_loss(scores, codes, [1]).backward()
    assert codes.grad is None
    assert scores.grad is not None
    assert (scores.grad[1] == 0).all()
    assert (scores.grad[[0, 2]].abs().sum(dim=(1, 2)) > 0).all()


def test_uniform_scores_cost_the_logarithm_of_the_number_of_prototypes() -> None:
    codes = torch.rand(2, 3, 8).softmax(dim=-1)
    assert swapped_prediction_loss(torch.zeros(2, 3, 8), codes, [0, 1]).item() == pytest.approx(math.log(8))


def test_agreeing_views_cost_less_than_disagreeing_ones() -> None:
    view = torch.nn.functional.normalize(torch.randn(6, 5), dim=1)
    agree, disagree = torch.stack([view, view]), torch.stack([view, view.roll(1, dims=0)])
    losses = [
        swapped_prediction_loss(both, torch.stack([sinkhorn(one) for one in both]), [0, 1])
        for both in (agree, disagree)
    ]
    assert losses[0] < losses[1]


def test_exchanging_both_views_changes_nothing() -> None:
    scores, codes = torch.randn(2, 4, 5), torch.rand(2, 4, 5)
    torch.testing.assert_close(
        swapped_prediction_loss(scores.flip(0), codes.flip(0), [0, 1]), swapped_prediction_loss(scores, codes, [0, 1])
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_scores_under_autocast_lose_nothing_more(dtype: torch.dtype) -> None:
    scores, codes = torch.randn(2, 4, 300).to(dtype), torch.rand(2, 4, 300).softmax(dim=-1)
    with torch.autocast("cpu", torch.bfloat16):
        loss = swapped_prediction_loss(scores, codes, [0, 1])
    assert loss.dtype == torch.float32
    exact = swapped_prediction_loss(scores.double(), codes.double(), [0, 1])
    torch.testing.assert_close(loss, exact.float(), rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("scores", "codes", "assign_views", "temperature", "message"),
    [
        ((2, 3, 4), (2, 3, 4), [0, 1], 0.0, "temperature must be positive, got 0.0"),
        ((1, 3, 4), (1, 3, 4), [0], 0.1, "with at least 2 views, got (1, 3, 4)"),
        ((2, 12), (2, 12), [0, 1], 0.1, "scores must be (V, B, K)"),
        ((2, 3, 4), (1, 3, 4), [0, 1], 0.1, "codes must be (2, 3, 4), one per view of [0, 1], got (1, 3, 4)"),
        ((2, 3, 4), (2, 3, 4), [0, 2], 0.1, "assign_views must name views from 0 to 1, got [0, 2]"),
        ((2, 3, 4), (0, 3, 4), [], 0.1, "assign_views must name views from 0 to 1, got []"),
    ],
)
def test_what_does_not_fit_is_refused(
    scores: tuple[int, ...], codes: tuple[int, ...], assign_views: list[int], temperature: float, message: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        swapped_prediction_loss(torch.zeros(scores), torch.zeros(codes), assign_views, temperature)
