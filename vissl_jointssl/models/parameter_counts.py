"""How many parameters each part of the method has (Table 7)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from vissl_jointssl.models.attention_axis import build_volume_encoder
from vissl_jointssl.models.masked_decoder import MaskedDecoder
from vissl_jointssl.models.slice_encoder import SliceEncoder


@dataclass(frozen=True)
class ParameterCounts:
    """Parameters of the parts.

    Attributes:
        f_intra: ResNet-50 without its classifier, and the map E -> D.
        f_inter: All its blocks, and the LayerNorm before them where there is one.
        prototypes: K x D, of stage 3 only and no part of the model that is handed on.
        decoder: f_decode, of stage 2 only.
    """

    f_intra: int
    f_inter: int
    prototypes: int
    decoder: int

    @property
    def total(self) -> int:
        """What Table 7 counts: f_intra and f_inter."""
        return self.f_intra + self.f_inter


def count_parameters(
    *,
    levels: Sequence[str],
    attention_axis: str,
    embedding_width: int = 640,
    prototypes: int = 3000,
    volume_encoder: Mapping[str, Any] | None = None,
) -> ParameterCounts:
    """Count by building the parts without their weights.

    Args:
        levels: ResNet levels that make up E.
        attention_axis: Of f_inter: ``slice``, ``embedding`` or ``none``.
        embedding_width: D.
        prototypes: K.
        volume_encoder: Further arguments of f_inter.

    Raises:
        ValueError: If a level or the axis is unknown, or if the sizes cannot be combined.
    """
    if embedding_width < 1 or prototypes < 0:
        raise ValueError(f"D must be positive and K not negative, got D = {embedding_width} and K = {prototypes}")
    with torch.device("meta"):
        slices = SliceEncoder(levels)
        projection = nn.Linear(slices.embedding_width, embedding_width)
        volumes = build_volume_encoder(attention_axis, width=embedding_width, **(volume_encoder or {}))
        decoder = MaskedDecoder(embedding_width, slices.embedding_width)
    return ParameterCounts(
        f_intra=_count(slices) + _count(projection),
        f_inter=_count(volumes),
        prototypes=prototypes * embedding_width,
        decoder=_count(decoder),
    )


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
