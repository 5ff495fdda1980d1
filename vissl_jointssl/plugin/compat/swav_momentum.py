"""The momentum encoder of VISSL's ``swav_momentum_loss`` on CPU."""

from __future__ import annotations

import torch
from classy_vision.generic.distributed_util import init_distributed_data_parallel_model
from torch import nn
from vissl.hooks.swav_momentum_hooks import SwAVMomentumHook
from vissl.models import build_model
from vissl.trainer.train_task import SelfSupervisionTask


def replace_momentum_network() -> None:
    """``vissl/hooks/swav_momentum_hooks.py:69`` converts to SyncBN without asking, which CPUs refuse (by design)."""
    SwAVMomentumHook._build_momentum_network = build_momentum_network


def build_momentum_network(self: SwAVMomentumHook, task: SelfSupervisionTask) -> None:
    """Give the loss a second encoder that starts as a copy of the model, or as the checkpoint's.

    Args:
        self: The hook.
        task: Its ``loss.momentum_encoder`` is set.
    """
    encoder = build_model(task.config["MODEL"], task.config["OPTIMIZER"])
    if task.use_gpu:
        encoder = nn.SyncBatchNorm.convert_sync_batchnorm(encoder)
    encoder = encoder.to(task.device)
    if task.loss.checkpoint is None:
        _copy_weights_and_statistics(task.base_model, encoder)
    task.loss.momentum_encoder = init_distributed_data_parallel_model(encoder)
    if task.loss.checkpoint is not None:
        task.loss.load_state_dict(task.loss.checkpoint)


@torch.no_grad()
def _copy_weights_and_statistics(source: nn.Module, target: nn.Module) -> None:
    """Copy parameters and running statistics; the counters of batch norm start at zero, as VISSL's do."""
    for ours, theirs in zip(target.parameters(), source.parameters(), strict=True):
        ours.copy_(theirs)
    statistics = dict(source.named_buffers())
    for name, buffer in target.named_buffers():
        if "running_" in name:
            buffer.copy_(statistics[name])
