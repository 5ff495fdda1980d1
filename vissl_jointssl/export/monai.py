"""Export of f_intra to MONAI's ``resnet50`` in two dimensions.

MONAI's defaults are those of a video network: its stem has stride 1 and its shortcuts a bias. With the arguments of
``ARGUMENTS`` it is the ResNet-50 that was trained, and its names are torchvision's.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from vissl_jointssl.export.account import ExportAccount, library
from vissl_jointssl.export.slice_encoder import Loaded, SliceTarget, export_slice_encoder
from vissl_jointssl.export.training_config import Normalisation

ARGUMENTS = {
    "spatial_dims": 2,
    "n_input_channels": 3,
    "conv1_t_stride": 2,
    "bias_downsample": False,
    "feed_forward": False,  # no classifier
}
_ARGUMENTS = ", ".join(f"{name}={value}" for name, value in ARGUMENTS.items())


def _load(weights: dict[str, Tensor]) -> Loaded:
    model = library("monai.networks.nets", "monai").resnet50(**ARGUMENTS)
    missing, unexpected = model.load_state_dict(weights, strict=False)
    return Loaded(model.eval(), tuple(missing), tuple(unexpected))


def _load_with(name: str, known: Normalisation) -> str:
    return f"model = monai.networks.nets.resnet50(pretrained={name!r}, {_ARGUMENTS})"


TARGET = SliceTarget(
    name="monai",
    architecture=f"monai.networks.nets.resnet50({_ARGUMENTS})",
    load_with=_load_with,
    load=_load,
)


def export_monai(
    checkpoint: Path | str, out: Path | str, *, intensity: Mapping[str, Any] | None = None
) -> ExportAccount:
    """Write f_intra for MONAI's two-dimensional ``resnet50``; see `slice_encoder.export_slice_encoder`."""
    return export_slice_encoder(TARGET, checkpoint, out, intensity=intensity)
