"""Export of f_intra to torchvision's ``resnet50``.

In a notebook, one line each to build and to load (the classifier is yours to add)::

    model = torchvision.models.resnet50(weights=None)
    model.load_state_dict(torch.load("f_intra.pth", weights_only=True), strict=False)  # only fc.* is missing

or, where strictness matters, take the classifier away first::

    model.fc = torch.nn.Identity()
    model.load_state_dict(torch.load("f_intra.pth", weights_only=True))
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import resnet50

from vissl_jointssl.export.account import ExportAccount
from vissl_jointssl.export.slice_encoder import Loaded, SliceTarget, export_slice_encoder
from vissl_jointssl.export.training_config import Normalisation
from vissl_jointssl.export.whole_resnet50 import CLASSIFIER


def load_resnet50(weights: dict[str, Tensor]) -> Loaded:
    """Torchvision's ``resnet50`` with weights by its own names; its classifier is missing."""
    with torch.device("meta"):  # every weight is about to be replaced; drawing them would take longer than the check
        model = resnet50(weights=None)
    missing, unexpected = model.load_state_dict(weights, strict=False, assign=True)
    model.fc = nn.Identity()
    return Loaded(model.eval(), tuple(missing), tuple(unexpected))


def load_backbone(weights: dict[str, Tensor]) -> Loaded:
    """As `load_resnet50`, standing in for a backbone that has no classifier."""
    loaded = load_resnet50(weights)
    return loaded._replace(missing=tuple(name for name in loaded.missing if name not in CLASSIFIER))


def _load_with(name: str, known: Normalisation) -> str:
    return (
        "model = torchvision.models.resnet50(weights=None); model.fc = torch.nn.Identity()\n"
        f"model.load_state_dict(torch.load({name!r}, weights_only=True))"
    )


TARGET = SliceTarget(
    name="torchvision",
    architecture="torchvision.models.resnet50",
    load_with=_load_with,
    load=load_resnet50,
    may_miss=CLASSIFIER,
)


def export_torchvision(
    checkpoint: Path | str, out: Path | str, *, intensity: Mapping[str, Any] | None = None
) -> ExportAccount:
    """Write f_intra as a state dict of torchvision's ``resnet50``; see `slice_encoder.export_slice_encoder`."""
    return export_slice_encoder(TARGET, checkpoint, out, intensity=intensity)
