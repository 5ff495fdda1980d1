"""Export of f_intra as the ``resnet50`` encoder of segmentation_models_pytorch's U-Net and its relatives."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from vissl_jointssl.export.account import ExportAccount, library
from vissl_jointssl.export.slice_encoder import Loaded, SliceTarget, export_slice_encoder
from vissl_jointssl.export.training_config import Normalisation

PACKAGE = "segmentation-models-pytorch"


def _load(weights: dict[str, Tensor]) -> Loaded:
    encoder = library("segmentation_models_pytorch", PACKAGE).encoders.get_encoder("resnet50", weights=None)
    wanted = encoder.state_dict().keys()
    # Its own load_state_dict says nothing about what it did not find.
    missing, unexpected = tuple(sorted(wanted - weights.keys())), tuple(sorted(weights.keys() - wanted))
    encoder.load_state_dict(dict(weights), strict=False)
    encoder.eval()

    def features(images: Tensor) -> Tensor:
        deepest: Tensor = encoder(images)[-1]  # the encoder gives the maps of six depths, without pooling
        return deepest.mean(dim=(2, 3))

    return Loaded(features, missing, unexpected)


def _load_with(name: str, known: Normalisation) -> str:
    return (
        'model = segmentation_models_pytorch.Unet("resnet50", encoder_weights=None)\n'
        f"model.encoder.load_state_dict(torch.load({name!r}, weights_only=True))"
    )


TARGET = SliceTarget(
    name="segmentation_models_pytorch",
    architecture='segmentation_models_pytorch.encoders.get_encoder("resnet50", weights=None)',
    load_with=_load_with,
    load=_load,
)


def export_segmentation_models_pytorch(
    checkpoint: Path | str, out: Path | str, *, intensity: Mapping[str, Any] | None = None
) -> ExportAccount:
    """Write f_intra as the encoder of a U-Net; see `slice_encoder.export_slice_encoder`."""
    return export_slice_encoder(TARGET, checkpoint, out, intensity=intensity)
