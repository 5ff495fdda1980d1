"""What the weights alone do not say, from the ``train_config.yaml`` that VISSL leaves beside its checkpoints.

``vissl/utils/hydra_config.py:19`` writes it. A checkpoint that was moved away from it exports all the same, with
these facts marked as unknown.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from vissl_jointssl.export.account import ExportError


@dataclass(frozen=True)
class TrainingConfig:
    """Facts about a training run that an exported model's user needs.

    Attributes:
        depth: Depth of the ResNet, or None where unknown.
        last_stride: Stride of its last stage, or None where unknown.
        mean: Per-channel mean that training subtracted; None where unknown or where nothing was subtracted.
        std: Per-channel standard deviation that training divided by; None as above.
        transforms: Names of the training transforms in order; empty where unknown.
    """

    depth: int | None = None
    last_stride: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    transforms: tuple[str, ...] = ()


def read_training_config(checkpoint: Path) -> TrainingConfig:
    """The facts for a checkpoint; all unknown where no ``train_config.yaml`` lies beside it.

    Raises:
        ExportError: If the file is there and cannot be read.
    """
    path = checkpoint.resolve().parent / "train_config.yaml"
    if not path.is_file():
        return TrainingConfig()
    try:
        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ExportError(
            f"{path}: cannot be read ({str(error).splitlines()[0]}); repair it, or move it away from the checkpoint "
            "to export without it"
        ) from error
    resnet = _inside(loaded, "config", "MODEL", "TRUNK", "RESNETS")
    transforms = _inside(loaded, "config", "DATA", "TRAIN").get("TRANSFORMS")
    named = [step for step in transforms if isinstance(step, dict)] if isinstance(transforms, list) else []
    normalise: dict[str, Any] = next((step for step in named if step.get("name") == "Normalize"), {})
    return TrainingConfig(
        depth=resnet.get("DEPTH"),
        last_stride=resnet.get("LAYER4_STRIDE"),
        mean=_numbers(normalise.get("mean")),
        std=_numbers(normalise.get("std")),
        transforms=tuple(str(step.get("name")) for step in named),
    )


def _inside(content: object, *keys: str) -> dict[str, Any]:
    for key in keys:
        content = content.get(key) if isinstance(content, dict) else None
    return content if isinstance(content, dict) else {}


def _numbers(values: object) -> tuple[float, ...] | None:
    return tuple(float(value) for value in values) if isinstance(values, list) else None
