"""What the weights alone do not say, from the ``train_config.yaml`` that VISSL leaves beside its checkpoints.

``vissl/utils/hydra_config.py:19`` writes it: what lies under ``config`` in a YAML of ours lies at the top there; a file
with ``config`` on top is read as well. A checkpoint that was moved away from it exports all the same, with
these facts marked as unknown.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from vissl_jointssl.checkpoints import Checkpoint
from vissl_jointssl.export.account import ExportError

GREY_MEAN = (0.449, 0.449, 0.449)
GREY_DEVIATION = (0.226, 0.226, 0.226)
"""What all our stages subtract and divide by; views/channels.py and plugin/volume_views.py have the numbers."""

_GREY_TRANSFORMS = ("volume_views", "volume_centre_view")  # these normalise inside


@dataclass(frozen=True)
class TrainingConfig:
    """Facts about a training run that an exported model's user needs.

    Attributes:
        depth: Depth of the ResNet, or None where unknown.
        last_stride: Stride of its last stage, or None where unknown.
        mean: Per-channel mean that training subtracted; None where unknown or where nothing was subtracted.
        std: Per-channel standard deviation that training divided by; None as above.
        transforms: Names of the training transforms in order; empty where unknown.
        manifests: Manifests of the training data, as the run was told them; empty where unknown.
    """

    depth: int | None = None
    last_stride: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    transforms: tuple[str, ...] = ()
    manifests: tuple[str, ...] = ()


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
    config = _inside(loaded, "config") or loaded
    resnet = _inside(config, "MODEL", "TRUNK", "RESNETS")
    train = _inside(config, "DATA", "TRAIN")
    transforms, manifests = train.get("TRANSFORMS"), train.get("DATA_PATHS")
    named = [step for step in transforms if isinstance(step, dict)] if isinstance(transforms, list) else []
    mean, std = _transforms_normalisation(named)
    return TrainingConfig(
        depth=resnet.get("DEPTH"),
        last_stride=resnet.get("LAYER4_STRIDE"),
        mean=mean,
        std=std,
        transforms=tuple(str(step.get("name")) for step in named),
        manifests=tuple(str(one) for one in manifests) if isinstance(manifests, list) else (),
    )


class Normalisation(NamedTuple):
    """Mean and deviation of each channel, of images in [0, 1], and how they are known."""

    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    known_from: str


def normalisation(checkpoint: Checkpoint, config: TrainingConfig) -> Normalisation:
    """What training subtracted and divided by, from its configuration, else from what made the checkpoint."""
    if config.transforms:
        return Normalisation(config.mean, config.std, "train_config.yaml beside the checkpoint")
    if checkpoint.record is not None:
        return Normalisation(GREY_MEAN, GREY_DEVIATION, "the default of our stages, one of which made the checkpoint")
    return Normalisation(None, None, "unknown: neither train_config.yaml nor a stage record")


def _transforms_normalisation(
    transforms: list[dict[str, Any]],
) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    for step in transforms:
        if step.get("name") == "Normalize":
            return _numbers(step.get("mean")), _numbers(step.get("std"))
        if step.get("name") in _GREY_TRANSFORMS:
            return GREY_MEAN, GREY_DEVIATION
    return None, None


def _inside(content: object, *keys: str) -> dict[str, Any]:
    for key in keys:
        content = content.get(key) if isinstance(content, dict) else None
    return content if isinstance(content, dict) else {}


def _numbers(values: object) -> tuple[float, ...] | None:
    return tuple(float(value) for value in values) if isinstance(values, list) else None
