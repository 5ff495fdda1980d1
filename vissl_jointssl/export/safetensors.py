"""Export of f_intra as ``.safetensors``: torchvision's names, the card in the metadata, nothing that could run code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from vissl_jointssl.atomic_file import write_at_once
from vissl_jointssl.export.account import ExportAccount, library
from vissl_jointssl.export.slice_encoder import Loaded, SliceTarget, export_slice_encoder
from vissl_jointssl.export.torchvision import load_resnet50
from vissl_jointssl.export.training_config import Normalisation
from vissl_jointssl.export.whole_resnet50 import CLASSIFIER

SUFFIX = ".safetensors"
CARD_KEY = "card"  # of the metadata, which safetensors keeps as strings


def _load(weights: dict[str, Tensor]) -> Loaded:
    """What a reader of the file will have: the weights after a way through the format."""
    format_ = library("safetensors.torch", "safetensors")
    return load_resnet50(format_.load(format_.save(weights)))


def _save(weights: dict[str, Tensor], out: Path, card: Mapping[str, Any]) -> None:
    metadata = {"format": "pt", CARD_KEY: json.dumps(card)}
    data: bytes = library("safetensors.torch", "safetensors").save(weights, metadata=metadata)
    write_at_once(data, out)


def _load_with(name: str, known: Normalisation) -> str:
    return (
        "model = torchvision.models.resnet50(weights=None); model.fc = torch.nn.Identity()\n"
        f"model.load_state_dict(safetensors.torch.load_file({name!r}))"
    )


TARGET = SliceTarget(
    name="safetensors",
    architecture="torchvision.models.resnet50",
    load_with=_load_with,
    load=_load,
    save=_save,
    suffixes=(SUFFIX,),
    may_miss=CLASSIFIER,
)


def export_safetensors(
    checkpoint: Path | str, out: Path | str, *, intensity: Mapping[str, Any] | None = None
) -> ExportAccount:
    """Write f_intra as ``.safetensors``; see `slice_encoder.export_slice_encoder`."""
    return export_slice_encoder(TARGET, checkpoint, out, intensity=intensity)
