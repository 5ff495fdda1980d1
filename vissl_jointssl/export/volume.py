"""Export of f_intra and f_inter as one file, for 3D tasks; ``load_pretrained`` gives the module back.

What is in the file: `models/volume_file.py`.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from vissl_jointssl.checkpoints import SLICE_ENCODER_PREFIX, save_atomically
from vissl_jointssl.export.account import ExportAccount
from vissl_jointssl.export.card import VOLUMES, card_path, describe, write_card
from vissl_jointssl.export.parity import TOLERANCE, check_parity, resnet_features
from vissl_jointssl.export.source import dropped, own_copies, read_source
from vissl_jointssl.export.training_config import normalisation
from vissl_jointssl.models.joint_encoder import JointEncoder, joint_encoder_of
from vissl_jointssl.models.slice_encoder import LEVEL_CHANNELS
from vissl_jointssl.models.volume_file import FORMAT, encoder_options, volume_module

_PARITY_SIZE = 64  # pixels; levels of five halvings leave 2


def export_volume(
    checkpoint: Path | str, out: Path | str, *, intensity: Mapping[str, Any] | None = None
) -> ExportAccount:
    """Write f_intra and f_inter of a checkpoint of stage 2 or 3.

    Before anything is written, the file's bytes are read back, and the module in them compared with the
    checkpoint's on one fixed input; the deepest slice features also with the independent walk of ``parity.py``.

    Args:
        checkpoint: Of stage 2 or 3, or the folder of its run: its newest one.
        out: File to write; replaced if it exists.
        intensity: How raw intensities became [0, 1], for the card; looked up in the training data by default.

    Raises:
        CheckpointError: If the checkpoint cannot be read, is of stage 1, or is not the model of its record.
        ExportError: If the outputs disagree, or ``out`` would harm the training run.
    """
    source = read_source(checkpoint, out)
    encoder, _ = joint_encoder_of(source.checkpoint)
    assert source.checkpoint.record is not None  # joint_encoder_of has checked
    options = encoder_options(source.checkpoint.record)
    load_with = f"from vissl_jointssl import load_pretrained\nmodel = load_pretrained({source.out.name!r})"
    known = normalisation(source.checkpoint, source.config)

    volumes = parity_volumes(options)
    content: dict[str, Any] = {"format": FORMAT, "options": options, "state": own_copies(encoder.state_dict())}
    difference = _difference(source.path, _through_the_format(content, source.path), encoder, volumes)

    account = ExportAccount(
        target="volume",
        matched=tuple(sorted(content["state"])),
        renamed={},
        dropped=dropped(source.checkpoint, content["state"]),
        missing=(),
        max_abs_difference=difference,
        out=source.out,
        card=card_path(source.out),
        load_with=load_with,
    )
    card = describe(
        account,
        source,
        known,
        architecture=f"vissl_jointssl.models.joint_encoder.JointEncoder(**{options})",
        axis_order=VOLUMES,
        parity={"input": list(volumes.shape), "accepted": TOLERANCE},
        intensity=intensity,
    )
    save_atomically({**content, "card": card}, source.out)
    return replace(account, card=write_card(source.out, card))


def parity_volumes(options: Mapping[str, Any]) -> Tensor:
    """The fixed input of the parity check ``(2, F, 1, 64, 64)``, standard normal, the second volume padded at its end.

    F is 6, or what an f_inter along the embedding axis was built for.
    """
    slices = int(options["options"].get("slices", 6))
    generator = torch.Generator().manual_seed(20240302)
    volumes = torch.randn(2, slices, 1, _PARITY_SIZE, _PARITY_SIZE, generator=generator)
    volumes[1, -2:] = torch.nan
    return volumes


def _through_the_format(content: Mapping[str, Any], path: Path) -> JointEncoder:
    """What a reader of the file will have."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    buffer.seek(0)
    read = torch.load(buffer, map_location="cpu", weights_only=True)
    module = volume_module(read, path)
    module.load_state_dict(read["state"])
    return module.eval()


def _difference(path: Path, exported: JointEncoder, own: JointEncoder, volumes: Tensor) -> float:
    with torch.no_grad():
        differences = [
            check_parity(path, exported(volumes), own(volumes)),
            check_parity(path, exported.encoded(volumes), own.encoded(volumes)),
        ]
        if "res5" in exported.levels:
            differences.append(check_parity(path, *_deepest_level(exported, volumes[:1])))
    return max(differences)


def _deepest_level(exported: JointEncoder, volume: Tensor) -> tuple[Tensor, Tensor]:
    """The part of the slice embeddings that res5 makes, by the module and by a walk that knows nothing of it."""
    before = exported.levels[: exported.levels.index("res5")]
    start = sum(LEVEL_CHANNELS[level] for level in before)
    by_module = exported.slices(volume)[0, :, start : start + LEVEL_CHANNELS["res5"]]
    weights = {name.removeprefix(SLICE_ENCODER_PREFIX): weight for name, weight in exported.state_dict().items()}
    walked = resnet_features(weights, volume[0].expand(-1, 3, -1, -1))
    return by_module, functional.normalize(walked, dim=1)
