"""Export of f_intra to timm's ``resnet50``, whose names are torchvision's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from vissl_jointssl.export.account import ExportAccount, library
from vissl_jointssl.export.slice_encoder import Loaded, SliceTarget, export_slice_encoder
from vissl_jointssl.export.training_config import Normalisation


def _load(weights: dict[str, Tensor]) -> Loaded:
    model = library("timm", "timm").create_model("resnet50", num_classes=0)
    missing, unexpected = model.load_state_dict(weights, strict=False)
    return Loaded(model.eval(), tuple(missing), tuple(unexpected))


def _load_with(name: str, known: Normalisation) -> str:
    return f'model = timm.create_model("resnet50", num_classes=0, checkpoint_path={name!r})'


TARGET = SliceTarget(
    name="timm",
    architecture='timm.create_model("resnet50", num_classes=0)',
    load_with=_load_with,
    load=_load,
)


def export_timm(
    checkpoint: Path | str, out: Path | str, *, intensity: Mapping[str, Any] | None = None
) -> ExportAccount:
    """Write f_intra for timm's ``resnet50``; see `slice_encoder.export_slice_encoder`."""
    return export_slice_encoder(TARGET, checkpoint, out, intensity=intensity)
