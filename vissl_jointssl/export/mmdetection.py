"""Export of f_intra as the ``ResNet`` backbone of MMDetection (and of MMSegmentation, which has the same).

Its names are torchvision's (``mmdet/models/backbones/resnet.py``), and ``init_cfg`` of the backbone loads them into the
backbone itself, so they carry no prefix ``backbone.``. ``style="pytorch"`` puts the stride where it was trained, in
the 3x3 convolution. MMDetection needs its compiled mmcv: the weights are checked in torchvision's ``resnet50``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vissl_jointssl.export.account import ExportAccount
from vissl_jointssl.export.slice_encoder import SliceTarget, export_slice_encoder
from vissl_jointssl.export.torchvision import load_backbone
from vissl_jointssl.export.training_config import Normalisation


def _load_with(name: str, known: Normalisation) -> str:
    """Lines of a configuration that inherits a detector's (``_base_``); its images are in [0, 255]."""
    backbone = f'depth=50, style="pytorch", init_cfg=dict(type="Pretrained", checkpoint={name!r})'
    if known.mean is None or known.std is None:
        return (
            f"model = dict(backbone=dict({backbone}))\n"
            "# mean and std of data_preprocessor: what training subtracted is unknown; 255 times that"
        )
    mean, std = ([round(255 * value, 3) for value in values] for values in (known.mean, known.std))
    return (
        f"model = dict(backbone=dict({backbone}),\n"
        f"             data_preprocessor=dict(mean={mean}, std={std}, bgr_to_rgb=True))"
    )


TARGET = SliceTarget(
    name="mmdetection",
    architecture='mmdet.models.ResNet(depth=50, style="pytorch")',
    load_with=_load_with,
    load=load_backbone,
)


def export_mmdetection(
    checkpoint: Path | str, out: Path | str, *, intensity: Mapping[str, Any] | None = None
) -> ExportAccount:
    """Write f_intra as MMDetection's backbone; see `slice_encoder.export_slice_encoder`."""
    return export_slice_encoder(TARGET, checkpoint, out, intensity=intensity)
