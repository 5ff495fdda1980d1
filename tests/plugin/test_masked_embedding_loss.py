"""The adapter of stage 2's loss: over ranks it is the mean over hidden slices, not the mean of means."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from vissl_jointssl.objectives.masked_embedding import masked_embedding_loss
from vissl_jointssl.plugin.masked_embedding_loss import MaskedEmbeddingLoss

VOLUMES, SLICES, WIDTH = 4, 5, 3


def _batch() -> tuple[Tensor, Tensor, Tensor]:
    """Inputs, targets and masks of four volumes; the first two hide 2 slices in all, the last two 6."""
    generator = torch.Generator().manual_seed(0)
    inputs, target = (torch.randn(VOLUMES, SLICES, WIDTH, generator=generator, dtype=torch.float64) for _ in range(2))
    mask = torch.zeros(VOLUMES, SLICES, dtype=torch.bool)
    mask[:2, 1] = True
    mask[2:, 1:4] = True
    return inputs, target, mask


def _decoder() -> nn.Module:
    torch.manual_seed(1)
    return nn.Linear(WIDTH, WIDTH).double()


def _one_rank_of_two(rank: int) -> tuple[float, list[Any]]:
    inputs, target, mask = (rows.chunk(2)[rank] for rows in _batch())
    model = DistributedDataParallel(_decoder())
    loss = MaskedEmbeddingLoss()([model(inputs), target, mask], None)
    loss.backward()
    return loss.item(), [parameter.grad.numpy() for parameter in model.parameters()]


def test_two_ranks_that_hide_different_numbers_of_slices_equal_one(on_two_ranks: Callable[..., Any]) -> None:
    inputs, target, mask = _batch()
    model = _decoder()
    whole = masked_embedding_loss(model(inputs), target, mask)
    whole.backward()
    answers = on_two_ranks(_one_rank_of_two)
    assert sum(loss for loss, _ in answers) / 2 == pytest.approx(whole.item(), rel=1e-12)
    for _, gradients in answers:
        for found, parameter in zip(gradients, model.parameters(), strict=True):
            torch.testing.assert_close(torch.from_numpy(found), parameter.grad, rtol=1e-12, atol=1e-14)


@pytest.mark.usefixtures("one_gloo_rank")
def test_on_one_rank_it_is_the_plain_mean_in_its_own_precision() -> None:
    inputs, target, mask = _batch()
    loss = MaskedEmbeddingLoss()([inputs.float(), target.float(), mask], None)
    assert torch.equal(loss, masked_embedding_loss(inputs.float(), target.float(), mask))


def test_without_a_process_group_it_is_the_plain_mean() -> None:
    inputs, target, mask = _batch()
    loss = MaskedEmbeddingLoss()([inputs, target, mask], None)
    assert torch.equal(loss, masked_embedding_loss(inputs, target, mask))
