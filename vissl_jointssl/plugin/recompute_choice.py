"""`MODEL.TRUNK.JOINT_SSL.RECOMPUTE`: whether the backward pass computes f_intra's blocks again, to save memory.

`none` keeps everything, `blocks` keeps the inputs of the blocks, `auto` is the latter where the former would not fit.
Stage 1 trains VISSL's own trunk, which has MODEL.ACTIVATION_CHECKPOINTING instead.
"""

from __future__ import annotations

import logging

import torch
from torch import Tensor, distributed, nn

from vissl_jointssl.models.activation_bytes import activation_bytes
from vissl_jointssl.models.freed_memory import give_back_freed_maps
from vissl_jointssl.objectives.over_ranks import over_ranks, rank_and_world
from vissl_jointssl.plugin.free_memory import free_memory

RECOMPUTE = ("auto", "none", "blocks")
BLOCKS_AT_ONCE = 1
"""More keep fewer inputs, but the peak then lies within a chunk."""

BESIDE = 1.3
"""Peak of a step over the activations it keeps: gradients of the largest maps, weights', the optimizer's state."""

_GIB = 2**30
_OTHERWISE = "MODEL.TRUNK.JOINT_SSL.RECOMPUTE=none or =blocks decides otherwise"


class RecomputeChoice:
    """The choice of one run, made at its first training step.

    Args:
        asked: One of `RECOMPUTE`.
    """

    def __init__(self, asked: str) -> None:
        self._asked = asked
        self._blocks: int | None = None

    def blocks_at_once(self, blocks: nn.ModuleDict, volumes: Tensor) -> int:
        """As `slice_encoder.feature_maps` takes it: 0, or bottlenecks that are computed again at once.

        All ranks must ask together. They do the same, or SyncBatchNorm would wait for ranks that have no second pass.

        Args:
            blocks: f_intra.
            volumes: Of a step ``(B, F, C, H, W)``, all views; the first ones decide.
        """
        if self._blocks is None:
            again = self._too_large(blocks, volumes) if self._asked == "auto" else self._asked == "blocks"
            self._blocks = BLOCKS_AT_ONCE if again else 0
            if again and volumes.device.type == "cpu":
                give_back_freed_maps()
        return self._blocks

    def _too_large(self, blocks: nn.ModuleDict, volumes: Tensor) -> bool:
        device = volumes.device
        slices, (height, width) = volumes.shape[0] * volumes.shape[1], volumes.shape[-2:]
        needed = BESIDE * activation_bytes(blocks, slices, height, width, _number_bytes(blocks, device))
        free = free_memory(device, rank_and_world()[1])
        if free is None:
            logging.info("memory: this system does not tell what is free, so nothing is recomputed; %s", _OTHERWISE)
        here = free is not None and needed > free
        anywhere = bool(over_ranks(torch.tensor(int(here), device=device), distributed.ReduceOp.MAX))
        if free is not None:
            logging.info(
                "memory: a step of %d slices of %d x %d keeps about %.1f GiB, %.1f GiB are free for this rank: %s; %s",
                slices,
                height,
                width,
                needed / _GIB,
                free / _GIB,
                "its blocks are computed again in the backward pass" if anywhere else "nothing is recomputed",
                _OTHERWISE,
            )
        return anywhere


def _number_bytes(blocks: nn.ModuleDict, device: torch.device) -> int:
    if torch.is_autocast_enabled(device.type):
        return torch.get_autocast_dtype(device.type).itemsize
    return next(blocks.parameters()).dtype.itemsize
