"""Keeps stage 3's prototypes on the unit sphere and shows them to the loss.

VISSL's own hooks do this only when `LOSS.name` is literally `swav_loss` (vissl/hooks/__init__.py:60, swav_hooks.py:37).
"""

from __future__ import annotations

from typing import Any

import torch
from classy_vision.hooks import ClassyHook
from torch import Tensor
from torch.nn.functional import normalize
from torch.nn.parallel import DistributedDataParallel


class InterPrototypesHook(ClassyHook):
    """L2-normalises every prototype after each update, and hands the loss a detached view before each step."""

    on_phase_start = ClassyHook._noop
    on_loss_and_meter = ClassyHook._noop
    on_backward = ClassyHook._noop
    on_step = ClassyHook._noop
    on_phase_end = ClassyHook._noop
    on_end = ClassyHook._noop

    def on_start(self, task: Any) -> None:
        """The first scores are cosines too; a checkpoint's prototypes are unit vectors, and stay as they are."""
        if task.checkpoint is None:  # once more would move them by a rounding, and the run off its course
            _normalise(_prototypes(task))

    def on_forward(self, task: Any) -> None:
        """The loss scores its queue with the prototypes that made this batch's scores."""
        task.loss.prototypes = [weight.detach() for weight in _prototypes(task)]

    def on_update(self, task: Any) -> None:
        """After the optimizer's step."""
        _normalise(_prototypes(task))


def _prototypes(task: Any) -> list[Tensor]:
    # on_start runs after DDP has wrapped the model, test phases too
    model = task.model.module if isinstance(task.model, DistributedDataParallel) else task.model
    head = model.heads[0]
    return [getattr(head, f"prototypes{index}").weight for index in range(head.nmb_heads)]


@torch.no_grad()
def _normalise(prototypes: list[Tensor]) -> None:
    for weight in prototypes:
        weight.copy_(normalize(weight, dim=1))
