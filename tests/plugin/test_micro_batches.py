"""Cutting a batch, joining what came of it, and repeating a pass exactly."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from vissl_jointssl.plugin.micro_batches import (
    as_leaves,
    backward_of_part,
    buffers_kept,
    cut_input,
    cut_rows,
    gradient_of_outputs,
    join_rows,
    number_of_views,
    random_state,
    replayed,
)


def test_all_views_of_a_volume_are_in_the_same_part_and_outputs_return_to_their_places() -> None:
    views = [torch.arange(6) + 10 * view for view in range(3)]
    parts = cut_input(views, 2)
    assert [[view.tolist() for view in part] for part in parts] == [
        [[0, 1, 2], [10, 11, 12], [20, 21, 22]],
        [[3, 4, 5], [13, 14, 15], [23, 24, 25]],
    ]
    outputs = [torch.cat(part) for part in parts]  # view-major, as a model returns them
    joined = join_rows(outputs, number_of_views(views))
    assert torch.equal(joined, torch.cat(views))
    for found, wanted in zip(cut_rows(joined, 3, 2), outputs, strict=True):
        assert torch.equal(found, wanted)


def test_a_single_tensor_is_cut_by_rows() -> None:
    rows = torch.arange(6)
    parts = cut_input(rows, 3)
    assert [part.tolist() for part in parts] == [[0, 1], [2, 3], [4, 5]]
    assert torch.equal(join_rows(parts, number_of_views(rows)), rows)


def test_a_batch_that_cannot_be_cut_evenly_is_refused() -> None:
    with pytest.raises(ValueError, match=r"a batch of 5 cannot be cut into 2 equal parts; make .*MICRO_BATCHES"):
        cut_input([torch.zeros(5, 1), torch.zeros(5, 1)], 2)


def test_a_replay_draws_the_same_and_leaves_no_trace() -> None:
    state = random_state()
    first = torch.rand(3)
    torch.rand(5)
    before = torch.get_rng_state()
    with replayed(state):
        again = torch.rand(3)
    assert torch.equal(first, again)
    assert torch.equal(torch.get_rng_state(), before)


def test_running_statistics_do_not_move_in_a_pass_that_is_repeated() -> None:
    norm = nn.BatchNorm1d(2)
    with torch.no_grad(), buffers_kept(norm):
        norm(torch.randn(4, 2) + 3)
        assert norm.running_mean.abs().sum() > 0
    assert norm.running_mean.abs().sum() == 0
    assert norm.num_batches_tracked == 0


def test_only_outputs_that_the_loss_reads_and_the_model_made_carry_gradient() -> None:
    weight = torch.ones(2, requires_grad=True)
    made, unread, frozen, mask = weight * 3, weight * 5, torch.ones(2), torch.tensor([True, False])
    outputs = [made, unread, frozen, mask]
    leaves = as_leaves(outputs)
    assert [leaf.requires_grad for leaf in leaves] == [True, True, True, False]
    loss = (leaves[0][leaves[3]] * leaves[2][leaves[3]]).sum()
    gradients = gradient_of_outputs(loss, leaves)
    assert gradients[1] is None
    assert gradients[3] is None
    backward_of_part(outputs, gradients)
    assert weight.grad.tolist() == [3.0, 0.0]
