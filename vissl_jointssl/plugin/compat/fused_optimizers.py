"""SGD and AdamW that take a step in one pass over the weights."""

from __future__ import annotations

from typing import Any

import torch
from classy_vision.optim import SGD, AdamW
from torch.optim import Optimizer

from vissl_jointssl.plugin.compat.patching import announce
from vissl_jointssl.plugin.larc import Larc

LARC_NOTICE = "LARC: apex is not needed; using our own for PyTorch"


def replace_optimizers() -> None:
    """``CV/optim/sgd.py:36`` and ``CV/optim/adamw.py:33`` leave PyTorch's optimizers at a pass per operation.

    The former also refuses LARC without apex (by design).
    """
    SGD.prepare = _prepare_sgd
    AdamW.prepare = _prepare_adamw


def _prepare_sgd(self: SGD, param_groups: list[dict[str, Any]]) -> None:
    """Build PyTorch's SGD, inside LARC if the config asks for it."""
    self.optimizer = torch.optim.SGD(
        param_groups,
        lr=self._lr,
        nesterov=self._nesterov,
        momentum=self._momentum,
        weight_decay=self._weight_decay,
        fused=True,
    )
    self.optimizer.register_step_pre_hook(begin_momenta)
    self.optimizer.register_load_state_dict_post_hook(lay_out_state)
    if self._use_larc:
        self.optimizer = Larc(optimizer=self.optimizer, distributed_norm=False, **self._larc_config)
        announce(LARC_NOTICE)


def _prepare_adamw(self: AdamW, param_groups: list[dict[str, Any]]) -> None:
    self.optimizer = torch.optim.AdamW(
        param_groups,
        lr=self._lr,
        betas=self._betas,
        eps=self._eps,
        weight_decay=self._weight_decay,
        amsgrad=self._amsgrad,
        fused=True,
    )
    self.optimizer.register_load_state_dict_post_hook(lay_out_state)


def begin_momenta(optimizer: Optimizer, *_: Any) -> None:
    """Let a weight that is trained from now on begin with a momentum of zeros.

    Which is what a plain step makes of none. A fused one wants one of every weight, or of no weight: VISSL's
    `TEMP_FROZEN_PARAMS_ITER_MAP` lets prototypes join later.
    """
    for group in optimizer.param_groups:
        for weight in group["params"]:
            if group["momentum"] and weight.grad is not None and "momentum_buffer" not in optimizer.state[weight]:
                optimizer.state[weight]["momentum_buffer"] = torch.zeros_like(weight)


@torch.no_grad()
def lay_out_state(optimizer: Optimizer) -> None:
    """Give a loaded state its weights' layout, which fused steps take for granted.

    They walk through weights, gradients and state in the order of memory: a momentum in another layout, from a
    checkpoint of before the weights were channels-last, would be that of other weights.
    """
    for group in optimizer.param_groups:
        group["fused"] = True  # a checkpoint of before says otherwise
        for weight in group["params"]:
            state = optimizer.state.get(weight, {})
            for name, value in state.items():
                if isinstance(value, torch.Tensor) and value.shape == weight.shape:
                    state[name] = torch.empty_like(weight, dtype=value.dtype).copy_(value)
