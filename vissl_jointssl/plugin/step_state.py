"""What a training step changes before the optimizer does, so that a step can be undone up to there.

The optimizer's own state needs no copy: a step that is undone never reaches it. Model and loss change in the forward
pass: BatchNorm's statistics, a loss' queue, memory and counters. All of them are buffers or plain numbers.
"""

from __future__ import annotations

import torch
from torch import nn


class StepState:
    """Copies of a model's and a loss' buffers, and of the plain numbers a loss counts in.

    Costs once the memory of these buffers: 0.2 MB for a ResNet-50, 20 MB for a queue of 3840 volumes.

    Args:
        model: Whose buffers are kept.
        loss: Whose buffers are kept, and numbers such as `start_idx` (vissl/losses/deepclusterv2_loss.py:139).
    """

    def __init__(self, model: nn.Module, loss: nn.Module) -> None:
        self._buffers = [(buffer, buffer.clone()) for module in (model, loss) for buffer in module.buffers()]
        self._numbers = [(module, _numbers(module)) for module in loss.modules()]

    @torch.no_grad()
    def restore(self) -> None:
        """Put everything back, bit for bit."""
        for buffer, value in self._buffers:
            buffer.copy_(value)
        for module, numbers in self._numbers:
            for name, number in numbers.items():
                setattr(module, name, number)


def _numbers(module: nn.Module) -> dict[str, float]:
    return {name: value for name, value in vars(module).items() if isinstance(value, bool | int | float)}
