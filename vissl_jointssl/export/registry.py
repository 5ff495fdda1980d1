"""The export targets by the name used on the command line."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path

from vissl_jointssl.export.account import ExportAccount, ExportError
from vissl_jointssl.spelling import nearest

Export = Callable[[Path, Path], ExportAccount]


def _late(target: str) -> Export:
    """``export_<target>`` of the file of that name, imported when it is called: listing names must not import torch."""

    def export(checkpoint: Path, out: Path) -> ExportAccount:
        module = importlib.import_module(f"vissl_jointssl.export.{target}")
        account: ExportAccount = getattr(module, f"export_{target}")(checkpoint, out)
        return account

    return export


TARGETS: dict[str, Export] = {
    target: _late(target)
    for target in (
        "torchvision",
        "timm",
        "segmentation_models_pytorch",
        "detectron2",
        "mmdetection",
        "monai",
        "safetensors",
        "volume",
    )
}


def find_target(name: str) -> Export:
    """The export function of a target.

    Raises:
        ExportError: If there is no such target; the message names the nearest one.
    """
    if name not in TARGETS:
        raise ExportError(f"unknown export target {name!r}{nearest(name, TARGETS)}")
    return TARGETS[name]
