"""Mixed precision in bfloat16, which VISSL does not know: `config.MODEL.AMP_PARAMS.AMP_TYPE=bfloat16`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from vissl.config import AttrDict
from vissl.models.base_ssl_model import BaseSSLMultiInputOutputModel

BFLOAT16 = "bfloat16"

_vissl_forward = BaseSSLMultiInputOutputModel.forward
_vissl_heads_forward = BaseSSLMultiInputOutputModel.heads_forward


def wants_bfloat16(model_config: AttrDict) -> bool:
    """Whether `config.MODEL` asks for it."""
    params = model_config.AMP_PARAMS
    return bool(params.USE_AMP) and str(params.AMP_TYPE).lower() == BFLOAT16


def add_bfloat16() -> None:
    """``vissl/trainer/train_steps/standard_train_step.py:132`` takes float16 for half precision (by design).

    bfloat16 has float32's range, so nothing is scaled, and the task, its step and its hooks go on as in float32. The
    trunk alone works in it (``vissl/models/base_ssl_model.py:131``): scores of prototypes rounded to 8 bits would move
    Sinkhorn's exp(score / 0.05) by 4 %, and heads cost next to nothing.
    """
    BaseSSLMultiInputOutputModel.forward = _forward
    BaseSSLMultiInputOutputModel.heads_forward = _heads_forward


def _forward(self: BaseSSLMultiInputOutputModel, batch: Any) -> Any:
    if not wants_bfloat16(self.model_config):
        return _vissl_forward(self, batch)
    with torch.autocast(_device(self), dtype=torch.bfloat16):
        return _in_float32(_vissl_forward(self, batch))


def _heads_forward(self: BaseSSLMultiInputOutputModel, feats: Any, heads: Any) -> Any:
    if not wants_bfloat16(self.model_config):
        return _vissl_heads_forward(self, feats, heads)
    with torch.autocast(_device(self), enabled=False):
        return _vissl_heads_forward(self, _in_float32(feats), heads)


def _device(model: nn.Module) -> str:
    return next(model.parameters()).device.type


def _in_float32(features: Any) -> Any:
    if isinstance(features, Tensor):
        return features.float() if features.dtype == torch.bfloat16 else features
    parts = [_in_float32(part) for part in features]
    return type(features)(*parts) if hasattr(features, "_fields") else parts  # a named tuple, as stage 2's
