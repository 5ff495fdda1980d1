"""The adapter of stage 3's loss, and the hook that keeps its prototypes."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import normalize

from vissl_jointssl.plugin.hooks.inter_prototypes import InterPrototypesHook
from vissl_jointssl.plugin.inter_swav_loss import InterSwAVLoss

from classy_vision.losses import build_loss  # isort: skip - after the plugin has made VISSL importable
from vissl.config import AttrDict  # isort: skip
from vissl.losses.swav_loss import SwAVLoss  # isort: skip

VIEWS, VOLUMES, WIDTH, PROTOTYPES = 2, 6, 8, 5
OPTIONS: dict[str, Any] = {
    "temperature": 0.1,
    "epsilon": 0.05,
    "num_iters": 3,
    "num_views": VIEWS,
    "assign_views": [0, 1],
    "embedding_width": WIDTH,
}


@pytest.fixture
def output() -> list[torch.Tensor]:
    """What `swav_head` gives for two views of six volumes, view-major."""
    generator = torch.Generator().manual_seed(0)
    embeddings = normalize(torch.randn(VIEWS * VOLUMES, WIDTH, generator=generator), dim=1)
    prototypes = normalize(torch.randn(PROTOTYPES, WIDTH, generator=generator), dim=1)
    return [embeddings, (embeddings @ prototypes.T).requires_grad_()]


def _vissls(queue_length: int = 0) -> SwAVLoss:
    return SwAVLoss(
        AttrDict(
            {
                "temperature": 0.1,
                "use_double_precision": False,
                "normalize_last_layer": True,
                "num_iters": 3,
                "epsilon": 0.05,
                "num_crops": VIEWS,
                "crops_for_assign": [0, 1],
                "num_prototypes": [PROTOTYPES],
                "embedding_dim": WIDTH,
                "temp_hard_assignment_iters": 0,
                "output_dir": ".",
                "queue": {"queue_length": queue_length, "start_iter": 0, "local_queue_length": queue_length},
            }
        )
    )


@pytest.mark.usefixtures("one_gloo_rank")
def test_without_a_queue_it_is_vissls_swav_loss(output: list[torch.Tensor]) -> None:
    theirs = _vissls()(output, None)
    (wanted,) = torch.autograd.grad(theirs, output[1])
    ours = InterSwAVLoss(**OPTIONS)(output, None)
    (found,) = torch.autograd.grad(ours, output[1])
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(found, wanted)


def _drifting_batches(steps: int, drift: float, centre: torch.Tensor) -> list[torch.Tensor]:
    """Embeddings close to one another, which all move away from a centre: weights that outrun the queue."""
    generator = torch.Generator().manual_seed(0)
    away = torch.randn(WIDTH, generator=generator)
    away = normalize(away - (away @ centre) * centre, dim=0)
    batches = []
    for step in range(steps):
        angle = torch.tensor(step * drift)
        noise = 0.05 * torch.randn(VIEWS * VOLUMES, WIDTH, generator=generator)
        batches.append(normalize(centre * angle.cos() + away * angle.sin() + noise, dim=1))
    return batches


@pytest.mark.usefixtures("one_gloo_rank")
@pytest.mark.parametrize(("drift", "outrun"), [(0.0, False), (0.15, True)])
def test_with_a_full_queue_it_is_vissls_swav_loss_even_where_weights_outrun_the_queue(
    drift: float, outrun: bool
) -> None:
    length = 2 * VOLUMES
    prototypes = normalize(torch.randn(PROTOTYPES, WIDTH, generator=torch.Generator().manual_seed(4)), dim=1)
    head = _Head()
    head.prototypes0.weight.data.copy_(prototypes)
    theirs, ours = _vissls(length), InterSwAVLoss(**OPTIONS, queue_length=length)
    ours.prototypes = [prototypes]
    excess = []
    for step, embeddings in enumerate(_drifting_batches(6, drift, prototypes[0])):
        output = [embeddings, (embeddings @ prototypes.T).requires_grad_()]
        if theirs.swav_criterion.use_queue:  # as VISSL's hook does, vissl/hooks/swav_hooks.py:36
            theirs.swav_criterion.compute_queue_scores(head)
        wanted, found = theirs(output, None), ours(output, None)
        if step < 2:
            continue  # VISSL's queue still holds random vectors
        torch.testing.assert_close(found, wanted)
        gradients = [torch.autograd.grad(loss, output[1], retain_graph=True)[0] for loss in (found, wanted)]
        torch.testing.assert_close(*gradients)
        excess.append(found.item() - InterSwAVLoss(**OPTIONS)(output, None).item())
    assert (min(excess) > 0.5) is outrun


@pytest.mark.parametrize("queue_length", [0, VOLUMES])
def test_autocast_changes_no_bit_of_codes_and_loss(output: list[torch.Tensor], queue_length: int) -> None:
    half = [output[0].bfloat16(), output[1].detach().bfloat16()]
    results = []
    for given, autocast in ((half, False), (half, True), ([rows.float() for rows in half], False)):
        loss = InterSwAVLoss(**OPTIONS, queue_length=queue_length)
        loss.prototypes = [normalize(torch.randn(PROTOTYPES, WIDTH, generator=torch.Generator().manual_seed(1)), dim=1)]
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            values = [loss(given, None) for _ in range(2)]
        assert values[1].dtype == loss.last_codes.dtype == torch.float32
        results.append((*values, loss.last_codes))
    for plain, under_autocast, in_float32 in zip(*results, strict=True):
        assert torch.equal(plain, in_float32)
        assert torch.equal(under_autocast, in_float32)


def test_it_is_made_from_its_section_of_the_config(output: list[torch.Tensor]) -> None:
    made = build_loss(AttrDict({**OPTIONS, "name": "inter_swav_loss"}))
    assert isinstance(made, InterSwAVLoss)
    torch.testing.assert_close(made(output, None), InterSwAVLoss(**OPTIONS)(output, None))


def test_several_sets_of_prototypes_are_averaged(output: list[torch.Tensor]) -> None:
    loss = InterSwAVLoss(**OPTIONS)
    other = output[1].detach().flip(1) * 0.5
    each = [loss([output[0], scores], None) for scores in (output[1], other)]
    torch.testing.assert_close(loss([*output, other], None), torch.stack(each).mean())


def test_the_queue_takes_part_from_its_first_step_on_and_changes_only_the_codes(output: list[torch.Tensor]) -> None:
    plain = InterSwAVLoss(**OPTIONS)(output, None)
    loss = InterSwAVLoss(**OPTIONS, queue_length=8, queue_start_iter=2)
    loss.prototypes = [normalize(torch.randn(PROTOTYPES, WIDTH, generator=torch.Generator().manual_seed(1)), dim=1)]
    values = [loss(output, None) for _ in range(3)]
    torch.testing.assert_close(values[0], plain)
    torch.testing.assert_close(values[1], plain)
    assert not torch.isclose(values[2], plain)


def test_the_queue_takes_part_once_it_is_full(output: list[torch.Tensor]) -> None:
    plain = InterSwAVLoss(**OPTIONS)(output, None)
    loss = InterSwAVLoss(**OPTIONS, queue_length=2 * VOLUMES)
    loss.prototypes = [normalize(torch.randn(PROTOTYPES, WIDTH, generator=torch.Generator().manual_seed(1)), dim=1)]
    values = [loss(output, None) for _ in range(3)]
    assert torch.equal(values[0], plain)
    assert torch.equal(values[1], plain)
    assert not torch.isclose(values[2], plain)


def test_the_queue_and_the_step_survive_a_checkpoint(output: list[torch.Tensor]) -> None:
    loss = InterSwAVLoss(**OPTIONS, queue_length=VOLUMES, queue_start_iter=1)
    loss.prototypes = [output[0][:PROTOTYPES].clone()]
    loss(output, None)
    resumed = InterSwAVLoss(**OPTIONS, queue_length=VOLUMES, queue_start_iter=1)
    resumed.load_state_dict(copy.deepcopy(loss.state_dict()))
    resumed.prototypes = loss.prototypes
    torch.testing.assert_close(resumed(output, None), loss(output, None))


def test_an_evaluation_does_not_feed_the_queue(output: list[torch.Tensor]) -> None:
    loss = InterSwAVLoss(**OPTIONS, queue_length=8).eval()
    loss.prototypes = [output[0][:PROTOTYPES].clone()]
    before = copy.deepcopy(loss.state_dict())
    loss(output, None)
    assert all(torch.equal(loss.state_dict()[name], value) for name, value in before.items())


class _Head(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.nmb_heads = 1
        self.prototypes0 = nn.Linear(WIDTH, PROTOTYPES, bias=False)


def test_prototypes_are_unit_vectors_from_the_start_and_after_every_update() -> None:
    head = _Head()
    task = SimpleNamespace(model=SimpleNamespace(heads=[head]), loss=SimpleNamespace(), checkpoint=None)
    hook = InterPrototypesHook()
    hook.on_start(task)
    torch.testing.assert_close(head.prototypes0.weight.norm(dim=1), torch.ones(PROTOTYPES))
    with torch.no_grad():
        head.prototypes0.weight.mul_(3)
    hook.on_update(task)
    torch.testing.assert_close(head.prototypes0.weight.norm(dim=1), torch.ones(PROTOTYPES))


def test_the_loss_sees_todays_prototypes_without_their_gradient() -> None:
    head = _Head()
    task = SimpleNamespace(model=SimpleNamespace(heads=[head]), loss=SimpleNamespace())
    InterPrototypesHook().on_forward(task)
    (shown,) = task.loss.prototypes
    assert torch.equal(shown, head.prototypes0.weight)
    assert not shown.requires_grad
