"""LARC and fused steps against VISSL's own and PyTorch's plain ones."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

import vissl_jointssl.plugin  # noqa: F401 - makes VISSL importable
from vissl_jointssl.plugin.larc import Larc

# isort: split
from classy_vision.optim import SGD, AdamW
from vissl.optimizers.larc_fsdp import LARC_FSDP


def _weights() -> list[nn.Parameter]:
    """One of each kind: channels-last, a vector, zeros, one whose gradient is zero, one without a gradient."""
    torch.manual_seed(0)
    values = [torch.randn(4, 3, 3, 3).to(memory_format=torch.channels_last), torch.randn(7), torch.zeros(5)]
    return [nn.Parameter(value) for value in (*values, torch.randn(6), torch.randn(2))]


def _gradients(weights: list[nn.Parameter], step: int) -> None:
    """The second weight is frozen in the first step, as VISSL freezes prototypes."""
    generator = torch.Generator().manual_seed(step)
    for weight in weights[:3] if step else (weights[0], weights[2]):
        weight.grad = torch.empty_like(weight).copy_(torch.randn(weight.shape, generator=generator))
    weights[3].grad = torch.zeros_like(weights[3])


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_larc_steps_as_vissls_own(clip: bool, decay: float) -> None:
    ends = []
    for kind in (Larc, LARC_FSDP):
        weights = _weights()
        groups = [{"params": weights[:2], "weight_decay": decay}, {"params": weights[2:], "lr": 0.5}]
        inner = torch.optim.SGD(groups, lr=0.1, momentum=0.9, weight_decay=0.01)
        optimizer = kind(inner, distributed_norm=False, trust_coefficient=0.5, clip=clip)
        for step in range(4):
            _gradients(weights, step)
            optimizer.step()
        assert [group["weight_decay"] for group in inner.param_groups] == [decay, 0.01]
        ends.append([weight.detach() for weight in weights])
    for ours, theirs, before in zip(*ends, _weights(), strict=True):
        torch.testing.assert_close(ours, theirs)
        assert torch.equal(ours, before) == (before.shape in ((6,), (2,)))


@pytest.mark.parametrize(
    ("kind", "options"),
    [(SGD, {"momentum": 0.9, "weight_decay": 0.01}), (AdamW, {"weight_decay": 0.1, "lr": 0.01})],
)
def test_fused_steps_are_pytorchs_plain_ones_also_from_an_old_checkpoint(kind: Any, options: dict[str, Any]) -> None:
    """Plain steps write a checkpoint in the old layout after two steps; fused ones go on from it."""
    plain, fused = _weights(), _weights()
    optimizer = kind.from_config(dict(options))
    optimizer.prepare([{"params": fused}])
    assert optimizer.optimizer.param_groups[0]["fused"]
    known = ("lr", "momentum", "betas", "eps", "weight_decay")
    taken_over = {name: value for name, value in optimizer.optimizer.defaults.items() if name in known}
    by_hand = getattr(torch.optim, kind.__name__)(plain, **taken_over, fused=False)
    for step in range(2):
        _gradients(plain, step)
        by_hand.step()
    state = copy.deepcopy(by_hand.state_dict())
    for of_weight in state["state"].values():
        for name, value in of_weight.items():
            of_weight[name] = value.contiguous() if isinstance(value, torch.Tensor) else value
    with torch.no_grad():
        for ours, theirs in zip(fused, plain, strict=True):
            ours.copy_(theirs)
    optimizer.optimizer.load_state_dict(state)
    for step in range(2, 5):
        for weights, one in ((plain, by_hand), (fused, optimizer.optimizer)):
            _gradients(weights, step)
            one.step()
    assert optimizer.optimizer.param_groups[0]["fused"]
    for ours, theirs in zip(fused, plain, strict=True):
        torch.testing.assert_close(ours, theirs)
