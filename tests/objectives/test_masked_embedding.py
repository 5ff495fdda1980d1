from __future__ import annotations

import pytest
import torch

from vissl_jointssl.objectives.masked_embedding import masked_embedding_loss

MASK = torch.tensor([[True, False, True, False], [False, False, False, True]])


def test_the_loss_equals_a_loop_over_equation_15() -> None:
    predicted, target = torch.randn(2, 2, 4, 5, dtype=torch.float64)
    distances = []
    for volume in range(2):
        for place in range(4):
            if MASK[volume, place]:
                squares = [(predicted[volume, place, e] - target[volume, place, e]).item() ** 2 for e in range(5)]
                distances.append(sum(squares) ** 0.5)
    assert masked_embedding_loss(predicted, target, MASK).item() == pytest.approx(sum(distances) / 3)


def test_visible_slices_neither_count_nor_learn() -> None:
    predicted, target = torch.randn(2, 4, 5, requires_grad=True), torch.randn(2, 4, 5)
    loss = masked_embedding_loss(predicted, target, MASK)
    elsewhere = target + 100 * (~MASK).unsqueeze(-1)
    assert torch.equal(masked_embedding_loss(predicted, elsewhere, MASK), loss)
    loss.backward()
    assert predicted.grad is not None
    assert (predicted.grad[~MASK] == 0).all()
    assert (predicted.grad[MASK].abs().sum(dim=1) > 0).all()


def test_the_target_gets_no_gradient() -> None:
    predicted, target = torch.randn(2, 4, 5, requires_grad=True), torch.randn(2, 4, 5, requires_grad=True)
    masked_embedding_loss(predicted, target, MASK).backward()
    assert target.grad is None


def test_a_perfect_prediction_costs_nothing_and_has_a_finite_gradient() -> None:
    target = torch.randn(2, 4, 5)
    predicted = target.clone().requires_grad_()
    loss = masked_embedding_loss(predicted, target, MASK)
    loss.backward()
    assert loss.item() == 0
    assert predicted.grad is not None
    assert predicted.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_half_precision_predictions_are_compared_in_float32(dtype: torch.dtype) -> None:
    predicted, target = torch.randn(2, 4, 500).bfloat16(), torch.randn(2, 4, 500).to(dtype)
    loss = masked_embedding_loss(predicted, target, MASK)
    assert loss.dtype == torch.float32
    exact = masked_embedding_loss(predicted.double(), target.double(), MASK)
    torch.testing.assert_close(loss, exact.float(), rtol=1e-6, atol=0)


def test_a_volume_that_hides_nothing_is_named() -> None:
    mask = MASK.clone()
    mask[1] = False
    with pytest.raises(ValueError, match=r"volumes \[1\] of the batch hide no slice; raise mask_ratio"):
        masked_embedding_loss(torch.zeros(2, 4, 5), torch.zeros(2, 4, 5), mask)


@pytest.mark.parametrize(("predicted", "mask"), [((2, 4, 6), (2, 4)), ((2, 4, 5), (2, 3))])
def test_shapes_that_differ_are_refused(predicted: tuple[int, ...], mask: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="does f_decode predict the width that f_intra gives"):
        masked_embedding_loss(torch.zeros(predicted), torch.zeros(2, 4, 5), torch.ones(mask, dtype=torch.bool))
