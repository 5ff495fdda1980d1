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

from vissl_jointssl.checkpoints import SLICE_ENCODER_PREFIX, Checkpoint, read_checkpoint, save_atomically
from vissl_jointssl.export.account import ExportAccount, ExportError
from vissl_jointssl.export.card import write_card
from vissl_jointssl.export.parity import parity_images, resnet_features
from vissl_jointssl.export.training_config import TrainingConfig, read_training_config

CLASSIFIER = ("fc.weight", "fc.bias")
TOLERANCE = 1e-5  # largest accepted difference of a pooled feature
LOAD_WITH = (
    "model = torchvision.models.resnet50(weights=None); model.fc = torch.nn.Identity(); "
    "model.load_state_dict(torch.load({name!r}, weights_only=True))"
)


def export_torchvision(
    checkpoint: Path | str, out: Path | str, *, intensity: Mapping[str, Any] | None = None
) -> ExportAccount:
    """Write f_intra of a training checkpoint as a state dict of torchvision's ``resnet50``.

    The weights are loaded into torchvision's model and its pooled features compared with an independent walk
    through the checkpoint (``parity.py``) before anything is written; a card (``card.py``) is written beside them.

    Args:
        checkpoint: A checkpoint of any stage, ours or stock VISSL's.
        out: File to write, such as ``f_intra.pth``; replaced if it exists.
        intensity: How raw intensities became [0, 1], for the card.

    Returns:
        What happened to every weight.

    Raises:
        CheckpointError: If the checkpoint cannot be read.
        ExportError: If it holds no ResNet-50, has weights that are not finite, the features disagree, or ``out``
            would harm the training run.
    """
    out = Path(out)
    source = read_checkpoint(checkpoint)
    _check_out(source, out)
    config = read_training_config(source.path)
    _check_config(source, config)
    renamed = {name: name.removeprefix(SLICE_ENCODER_PREFIX) for name in source.trunk if _is_slice_encoder(name)}
    # clone(): a tensor that is a view would drag its whole storage into the file.
    weights = {exported: source.trunk[name].detach().clone() for name, exported in renamed.items()}

    model = resnet50(weights=None)
    _check_names_shapes_values(source, weights, model.state_dict())
    missing, unexpected = model.load_state_dict(weights, strict=False)
    if set(missing) != set(CLASSIFIER) or unexpected:
        raise ExportError(
            f"{source.path}: torchvision's resnet50 misses {missing} and does not know {unexpected}; "
            f"only {list(CLASSIFIER)} may be missing"
        )
    images = parity_images()
    difference = _feature_difference(model, weights, images)
    # Written so that a NaN does not pass.
    if not difference <= TOLERANCE:
        raise ExportError(
            f"{source.path}: features of the exported model differ by {difference:.3g} from the checkpoint's own "
            f"(accepted: {TOLERANCE:g}), so nothing was written; report this with the checkpoint's train_config.yaml"
        )

    save_atomically(weights, out)
    card = write_card(
        out,
        source,
        config,
        target="torchvision",
        architecture="torchvision.models.resnet50",
        load_with=LOAD_WITH.format(name=out.name),
        parity={"input": list(images.shape), "max_abs_difference": difference, "accepted": TOLERANCE},
        intensity=intensity,
    )
    return ExportAccount(
        target="torchvision",
        matched=tuple(sorted(weights)),
        renamed=renamed,
        dropped=tuple(
            [name for name in source.trunk if name not in renamed] + [f"heads.{name}" for name in source.heads]
        ),
        missing=tuple(sorted(missing)),
        max_abs_difference=difference,
        out=out,
        card=card,
    )


def _is_slice_encoder(name: str) -> bool:
    return name.startswith(SLICE_ENCODER_PREFIX)


def _check_out(source: Checkpoint, out: Path) -> None:
    if out.suffix == ".torch" and out.resolve().parent == source.path.resolve().parent:
        raise ExportError(
            f"{out}: VISSL takes every .torch file beside a checkpoint for one of its own and would no longer resume "
            f"this run; write to another folder or end the name in .pth, such as {out.with_suffix('.pth').name}"
        )


def _check_config(source: Checkpoint, config: TrainingConfig) -> None:
    """Refuse what the weights do not show: a stride has no weight."""
    if config.depth not in (None, 50):
        raise ExportError(
            f"{source.path}: train_config.yaml beside it says a ResNet-{config.depth}; this target takes a ResNet-50"
        )
    if config.last_stride not in (None, 2):
        raise ExportError(
            f"{source.path}: trained with stride {config.last_stride} in its last stage, torchvision's resnet50 has "
            "stride 2 there; train with config.MODEL.TRUNK.RESNETS.LAYER4_STRIDE=2"
        )


def _check_names_shapes_values(source: Checkpoint, weights: dict[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    """Every fault of the weights at once."""
    absent = sorted(wanted.keys() - weights.keys() - set(CLASSIFIER))
    extra = sorted(weights.keys() - wanted.keys())
    shapes = [
        f"{name} is {tuple(weights[name].shape)} and should be {tuple(wanted[name].shape)}"
        for name in sorted(weights.keys() & wanted.keys())
        if weights[name].shape != wanted[name].shape
    ]
    not_finite = sorted(name for name, weight in weights.items() if not torch.isfinite(weight).all())
    faults = []
    if absent:
        faults.append(f"{len(absent)} weights of a ResNet-50 are absent: {_first(absent)}")
    if extra:
        faults.append(f"{len(extra)} weights have no place in a ResNet-50: {_first(extra)}")
    if shapes:
        faults.append(f"{len(shapes)} weights have another shape: {_first(shapes)}")
    if not_finite:
        faults.append(f"{len(not_finite)} weights are NaN or infinite: {_first(not_finite)}")
    if faults:
        listed = "".join(f"\n  - {fault}" for fault in faults)
        raise ExportError(
            f"{source.path}: not a usable ResNet-50 under {SLICE_ENCODER_PREFIX}*; "
            f"pass a checkpoint whose trunk is one and whose training did not diverge:{listed}"
        )


def _first(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def _feature_difference(model: nn.Module, weights: Mapping[str, Tensor], images: Tensor) -> float:
    model.eval()
    model.fc = nn.Identity()
    with torch.no_grad():
        return float((model(images) - resnet_features(weights, images)).abs().max())
