"""Export of f_intra: what every 2D target shares.

The weights are loaded into the target's own model and its pooled features compared with an independent walk through
the checkpoint (``parity.py``) before anything is written; a card (``card.py``) is written beside them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vissl_jointssl.checkpoints import SLICE_ENCODER_PREFIX, save_atomically
from vissl_jointssl.export.account import ExportAccount, ExportError
from vissl_jointssl.export.card import SLICES, card_path, describe, write_card
from vissl_jointssl.export.parity import TOLERANCE, check_parity, parity_images, resnet_features
from vissl_jointssl.export.source import PYTORCH_SUFFIXES, dropped, own_copies, read_source
from vissl_jointssl.export.training_config import Normalisation, normalisation
from vissl_jointssl.export.whole_resnet50 import check_resnet50


class Loaded(NamedTuple):
    """The target's model, holding the exported weights."""

    features: Callable[[Tensor], Tensor]  # (B, 3, H, W) -> (B, 2048), pooled, in evaluation mode
    missing: tuple[str, ...]  # of its weights
    unexpected: tuple[str, ...]  # of ours


def save_for_torch(weights: dict[str, Tensor], out: Path, card: Mapping[str, Any]) -> None:
    """Write a bare state dict, which nearly every library's ``torch.load`` expects; the card lies beside it only."""
    save_atomically(weights, out)


def torchvisions_name(name: str) -> str:
    """The name in a target that keeps torchvision's names: the same."""
    return name


@dataclass(frozen=True)
class SliceTarget:
    """A library that f_intra is exported to.

    Attributes:
        name: On the command line.
        architecture: Name of the model there.
        load_with: The lines that load a file there, from its name and the normalisation of the training images.
        load: Put weights under the target's names into the target's model.
        rename: torchvision's name -> the target's; None where the target has no place for it.
        save: Write ``(weights, out, card)``.
        suffixes: How its files may end.
        may_miss: Names of its model that need no weight: a classifier.
    """

    name: str
    architecture: str
    load_with: Callable[[str, Normalisation], str]
    load: Callable[[dict[str, Tensor]], Loaded]
    rename: Callable[[str], str | None] = torchvisions_name
    save: Callable[[dict[str, Tensor], Path, Mapping[str, Any]], None] = save_for_torch
    suffixes: tuple[str, ...] = PYTORCH_SUFFIXES
    may_miss: tuple[str, ...] = ()


def export_slice_encoder(
    target: SliceTarget, checkpoint: Path | str, out: Path | str, *, intensity: Mapping[str, Any] | None = None
) -> ExportAccount:
    """Write f_intra of a training checkpoint for another library.

    Args:
        target: The library.
        checkpoint: A checkpoint of any stage, ours or stock VISSL's, or the folder of a run: its newest one.
        out: File to write; replaced if it exists.
        intensity: How raw intensities became [0, 1], for the card; looked up in the training data by default.

    Returns:
        What happened to every weight.

    Raises:
        CheckpointError: If the checkpoint cannot be read.
        ExportError: If it holds no ResNet-50, has weights that are not finite, the features disagree, ``out`` would
            harm the training run, or the target's library is not installed.
    """
    source = read_source(checkpoint, out, target.suffixes)
    trunk = source.checkpoint.trunk
    weights = own_copies(
        {
            name.removeprefix(SLICE_ENCODER_PREFIX): weight
            for name, weight in trunk.items()
            if name.startswith(SLICE_ENCODER_PREFIX)
        }
    )
    check_resnet50(source.checkpoint, weights)
    renamed = {SLICE_ENCODER_PREFIX + name: theirs for name in weights if (theirs := target.rename(name)) is not None}
    exported = {theirs: weights[ours.removeprefix(SLICE_ENCODER_PREFIX)] for ours, theirs in renamed.items()}

    loaded = target.load(dict(exported))
    if set(loaded.missing) != set(target.may_miss) or loaded.unexpected:
        raise ExportError(
            f"{source.path}: {target.architecture} misses {list(loaded.missing)} and does not know "
            f"{list(loaded.unexpected)}; only {list(target.may_miss)} may be missing; "
            f"report this with your version of {target.name}"
        )
    images = parity_images()
    with torch.no_grad():
        difference = check_parity(source.path, loaded.features(images), resnet_features(weights, images))

    known = normalisation(source.checkpoint, source.config)
    account = ExportAccount(
        target=target.name,
        matched=tuple(sorted(exported)),
        renamed=renamed,
        dropped=dropped(source.checkpoint, renamed),
        missing=tuple(sorted(loaded.missing)),
        max_abs_difference=difference,
        out=source.out,
        card=card_path(source.out),
        load_with=target.load_with(source.out.name, known),
    )
    card = describe(
        account,
        source,
        known,
        architecture=target.architecture,
        axis_order=SLICES,
        parity={"input": list(images.shape), "accepted": TOLERANCE},
        intensity=intensity,
    )
    target.save(exported, source.out, card)
    return replace(account, card=write_card(source.out, card))
