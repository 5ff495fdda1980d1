"""Whether weights are a whole, finite ResNet-50 under torchvision's names."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torchvision.models import resnet50

from vissl_jointssl.checkpoints import SLICE_ENCODER_PREFIX, Checkpoint
from vissl_jointssl.export.account import ExportError

CLASSIFIER = ("fc.bias", "fc.weight")


def check_resnet50(source: Checkpoint, weights: Mapping[str, Tensor]) -> None:
    """Refuse weights that no ResNet-50 can use; every fault at once.

    Args:
        source: Where they come from, for the message.
        weights: By torchvision's names.

    Raises:
        ExportError: With the faults.
    """
    with torch.device("meta"):
        wanted = resnet50(weights=None).state_dict()
    absent = sorted(wanted.keys() - weights.keys() - set(CLASSIFIER))
    extra = sorted(weights.keys() - wanted.keys())
    shapes = [
        f"{name} is {tuple(weights[name].shape)} and should be {tuple(wanted[name].shape)}"
        for name in sorted(weights.keys() & wanted.keys())
        if weights[name].shape != wanted[name].shape
    ]
    listed = "".join(
        f"\n  - {len(names)} weights {fault}: {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}"
        for names, fault in (
            (absent, "of a ResNet-50 are absent"),
            (extra, "have no place in a ResNet-50"),
            (shapes, "have another shape"),
            (not_finite(weights), "are NaN or infinite"),
        )
        if names
    )
    if listed:
        raise ExportError(
            f"{source.path}: not a usable ResNet-50 under {SLICE_ENCODER_PREFIX}*; "
            f"pass a checkpoint whose trunk is one and whose training did not diverge:{listed}"
        )


def not_finite(weights: Mapping[str, Tensor]) -> list[str]:
    """Names of the weights that hold a NaN or an infinity, sorted."""
    return sorted(name for name, weight in weights.items() if not torch.isfinite(weight).all())
