"""LARC (arXiv 1708.03888) that never waits for the device."""

from __future__ import annotations

import torch
from torch import Tensor
from vissl.optimizers.larc_fsdp import LARC_FSDP


class Larc(LARC_FSDP):
    """VISSL's LARC with local norms (vissl/optimizers/larc_fsdp.py:101), whose rule it follows number for number.

    VISSL's asks of every parameter on the host whether its norms are zero: two waits for the device each, 322 a step
    for a ResNet-50. Here norms and rates of a group are one tensor each, and stay where they are.
    """

    @torch.no_grad()
    def step(self) -> None:
        """Scale the gradients, decay included, and let SGD take the step without decay of its own."""
        decays = []
        for group in self.optim.param_groups:
            decays.append(group["weight_decay"])
            group["weight_decay"] = 0
            trained = [weight for weight in group["params"] if weight.grad is not None]
            if trained:
                self._scale([weight.grad for weight in trained], trained, group["lr"], decays[-1])
        self.optim.step()
        for group, decay in zip(self.optim.param_groups, decays, strict=True):
            group["weight_decay"] = decay

    def _scale(self, gradients: list[Tensor], weights: list[Tensor], learning_rate: float, decay: float) -> None:
        sizes = torch.stack(torch._foreach_norm(weights))
        slopes = torch.stack(torch._foreach_norm(gradients))
        rates = self.trust_coefficient * sizes / (slopes + sizes * decay + self.eps)
        if self.clip:
            rates = (rates / learning_rate).clamp(max=1)
        # No rate for a weight of zeros, and no step, decay neither, for a gradient of zeros.
        rates = torch.where(sizes == 0, 1.0, rates).masked_fill(slopes == 0, 0.0)
        if decay:
            torch._foreach_add_(gradients, weights, alpha=decay)
        torch._foreach_mul_(gradients, list(rates.unbind()))
