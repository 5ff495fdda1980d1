"""Convolutions in channels-last layout, as current libraries compute them fastest."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from vissl import models
from vissl.config import AttrDict
from vissl.models.base_ssl_model import BaseSSLMultiInputOutputModel

from vissl_jointssl.plugin.compat.patching import replace_everywhere

_vissl_build_model = models.build_model
_vissl_get_classy_state = BaseSSLMultiInputOutputModel.get_classy_state


def replace_build_model() -> None:
    """``vissl/models/__init__.py:63`` builds models in PyTorch's default layout (by design).

    A convolution whose weights are channels-last answers in that layout whatever its input's, and what follows keeps
    it, so the weights decide for the whole trunk. Numbers change within rounding; checkpoints do not change at all
    (``vissl/models/base_ssl_model.py:395``): who reads them may count on dense rows, as safetensors does.
    """
    replace_everywhere(_vissl_build_model, build_model)
    BaseSSLMultiInputOutputModel.get_classy_state = _get_classy_state


def build_model(model_config: AttrDict, optimizer_config: AttrDict) -> nn.Module:
    """VISSL's own, its 2D convolutions channels-last."""
    model: nn.Module = _vissl_build_model(model_config, optimizer_config)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last)
    return model


def _get_classy_state(self: BaseSSLMultiInputOutputModel, deep_copy: bool = False) -> dict[str, Any]:
    state = _vissl_get_classy_state(self, deep_copy)
    heads = state["model"]["heads"]
    for part in [state["model"]["trunk"], *(heads if isinstance(heads, list) else [heads])]:  # a list under FSDP
        for name, weight in part.items():
            part[name] = weight.contiguous()
    return state
