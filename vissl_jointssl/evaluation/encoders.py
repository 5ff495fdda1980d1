"""From a start to a network: f_intra with the start's weights, and f_inter with them or random."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from vissl_jointssl.checkpoints import SLICE_ENCODER_PREFIX, CheckpointError
from vissl_jointssl.evaluation.initialisation import Initialisation
from vissl_jointssl.models.attention_axis import PRESETS
from vissl_jointssl.models.joint_encoder import JointEncoder, joint_encoder_of
from vissl_jointssl.spelling import nearest

WIDTH = 640  # D of the paper, for starts that bring no f_inter


def build_joint_encoder(
    start: Initialisation, *, preset: str = "paper", levels: Sequence[str] | None = None, slices: int = 64
) -> JointEncoder:
    """f_intra and f_inter of a start, in training mode.

    A stage-2 or stage-3 checkpoint brings both, at the sizes of its record. Any other start gets a random f_inter and a
    random map to it, drawn from PyTorch's global generator.

    Args:
        start: What to take weights from.
        preset: Of f_inter where the start has none, a name of `attention_axis.PRESETS`.
        levels: Of the slice embedding where the start has no f_inter; None takes the preset's.
        slices: F of every volume, to which a random f_inter along the embedding axis is bound.

    Raises:
        ValueError: If the preset or a level is unknown, or f_inter along the embedding axis does not take that many
            slices.
        CheckpointError: If the file's weights are not exactly those of the network.
    """
    if start.has_volume_encoder:
        assert start.checkpoint is not None
        encoder, _ = joint_encoder_of(start.checkpoint)
        return encoder.train()
    if preset not in PRESETS:
        raise ValueError(f"no preset of f_inter is called {preset!r}{nearest(preset, PRESETS)}")
    chosen = PRESETS[preset]
    options = {"slices": slices} if chosen.attention_axis == "embedding" else {}
    encoder = JointEncoder(levels or chosen.levels, chosen.attention_axis, WIDTH, options)
    _load_slice_encoder(encoder, start)
    return encoder


def build_slice_encoder(start: Initialisation, levels: Sequence[str]) -> JointEncoder:
    """f_intra of a start alone, whatever else it has: `slices` gives `(B, F, E)`, and Z is their normalised mean.

    Raises:
        ValueError: If a level is unknown.
        CheckpointError: If the file's weights are not exactly those of a ResNet-50.
    """
    encoder = JointEncoder(levels, "none", None)
    _load_slice_encoder(encoder, start)
    return encoder


def slices_needed(start: Initialisation) -> int | None:
    """How many slices a start's f_inter is bound to: along the embedding axis each slice has weights; else None."""
    record = None if start.checkpoint is None else start.checkpoint.record
    options = {} if record is None or record.volume_encoder is None else record.volume_encoder
    return int(options["slices"]) if options.get("attention_axis") == "embedding" else None


def slice_faults(start: Initialisation, slices: int) -> list[str]:
    """Why a start's f_inter cannot read volumes of a number of slices, in words."""
    needed = slices_needed(start)
    if needed in (None, slices):
        return []
    return [
        f"{start.name}: f_inter along the embedding axis reads exactly {needed} slices; set options.slices={needed}"
    ]


def encoder_faults(start: Initialisation, build: Callable[[Initialisation], JointEncoder]) -> list[str]:
    """Why a start's encoder cannot be built, in words; draws and trains nothing."""
    if not start.has_volume_encoder:
        start = replace(start, slice_encoder=None)  # `read_initialisation` has looked at these weights
    try:
        with torch.device("meta"):
            build(start)
    except ValueError as error:
        return [str(error)]
    return []


def encoder_account(start: Initialisation, encoder: JointEncoder) -> str:
    """What became of a start's weights, in one line for the log."""
    state = encoder.state_dict()
    given: dict[str, Tensor] = {}
    left: list[str] = []
    if start.slice_encoder is not None:
        given = {f"{SLICE_ENCODER_PREFIX}{name}": value for name, value in start.slice_encoder.items()}
    if start.checkpoint is not None:
        taken = start.checkpoint.trunk if start.has_volume_encoder else {}
        given |= {name: value for name, value in taken.items() if name in state}
        left = [name for name in start.checkpoint.trunk if name not in state or name not in given]
        left += [f"heads.{name}" for name in start.checkpoint.heads]
    found = [name for name in state if name in given and torch.equal(state[name].cpu(), given[name].cpu())]
    return (
        f"{start.name}: {len(found)} weights and buffers of {len(state)} from {start.path or 'no file'}, "
        f"{len(state) - len(found)} random; of the file not used: {', '.join(left) or 'none'}"
    )


def _load_slice_encoder(encoder: JointEncoder, start: Initialisation) -> None:
    if start.slice_encoder is None:
        return
    try:
        encoder.slice_encoder.load_state_dict(start.slice_encoder)
    except RuntimeError as error:
        raise CheckpointError(f"{start.path}: not exactly a ResNet-50 with torchvision's names: {error}") from error
