"""Which f_inter: along the slices (the paper), along the embedding entries (its released code), or none at all."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vissl_jointssl.models.released_volume_encoder import ReleasedVolumeEncoder
from vissl_jointssl.models.slice_encoder import PAPER_LEVELS, RELEASED_LEVELS
from vissl_jointssl.models.valid_slices import valid_lengths
from vissl_jointssl.models.volume_encoder import VolumeEncoder
from vissl_jointssl.spelling import nearest


class NoVolumeEncoder(nn.Module):
    """No f_inter: the slices of a volume do not see each other, and Z is the mean of their projected embeddings.

    Args:
        width: Width D; taken so that every axis is built alike.
    """

    def __init__(self, *, width: int = 640) -> None:
        super().__init__()
        self.width = width

    def forward(self, embeddings: Tensor, valid: Tensor | None = None) -> Tensor:
        """The embeddings ``(B, F, D)`` as they are; zeros where a slice does not exist."""
        if valid is None:
            valid = torch.ones(embeddings.shape[:2], dtype=torch.bool, device=embeddings.device)
        valid_lengths(valid)
        return embeddings.masked_fill(~valid.unsqueeze(-1), 0.0)


ATTENTION_AXES: dict[str, type[nn.Module]] = {
    "slice": VolumeEncoder,
    "embedding": ReleasedVolumeEncoder,
    "none": NoVolumeEncoder,
}
"""f_inter by the axis it attends along; the defaults of each class are the published numbers."""


@dataclass(frozen=True)
class Preset:
    """A published model in one word; every number that is not here is a default of the class of its axis."""

    levels: tuple[str, ...]
    attention_axis: str


PRESETS = {
    "paper": Preset(PAPER_LEVELS, "slice"),
    "released": Preset(RELEASED_LEVELS, "embedding"),
}


def volume_encoder_options(attention_axis: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Every argument of an axis' f_inter but its width: what is given, and the defaults of the rest.

    Written down whole, so that what a checkpoint holds does not change its meaning with a default.

    Raises:
        ValueError: If the axis or an option is unknown.
    """
    if attention_axis not in ATTENTION_AXES:
        raise ValueError(f"unknown attention axis {attention_axis!r}{nearest(attention_axis, ATTENTION_AXES)}")
    parameters = inspect.signature(ATTENTION_AXES[attention_axis]).parameters
    defaults = {name: parameter.default for name, parameter in parameters.items() if name != "width"}
    for name in given:
        if name not in defaults:
            raise ValueError(
                f"f_inter along the {attention_axis} axis has no option {name!r}{nearest(name, defaults)}"
                if defaults
                else f"the attention axis none has no f_inter, so it takes no option {name!r}; leave it out"
            )
    complete = {**defaults, **given}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in complete.items()}


def build_volume_encoder(attention_axis: str = "slice", *, width: int = 640, **options: Any) -> nn.Module:
    """f_inter for an axis, called as ``encoder(embeddings, valid)``.

    Args:
        attention_axis: ``slice``, ``embedding`` or ``none``.
        width: Width D.
        options: Further arguments of that axis' class.

    Raises:
        ValueError: If the axis or an option is unknown, or if the sizes cannot be combined.
    """
    complete = volume_encoder_options(attention_axis, options)
    return ATTENTION_AXES[attention_axis](width=width, **complete)
