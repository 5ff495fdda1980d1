"""The file that `jointssl export --to volume` writes: f_intra and f_inter with all that rebuilds them.

It is a dictionary of tensors and plain containers, so that ``torch.load(weights_only=True)`` reads it::

    {"format": "vissl_jointssl.volume/1", "options": {...}, "state": {name: tensor}, "card": {...}}

``options`` are the arguments of `joint_encoder.JointEncoder`, all written down, so that a changed default does not
change what a file means.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vissl_jointssl.checkpoints import Checkpoint, CheckpointError, StageRecord
from vissl_jointssl.models.attention_axis import volume_encoder_options
from vissl_jointssl.models.joint_encoder import JointEncoder

FORMAT = "vissl_jointssl.volume/1"


def encoder_options(record: StageRecord) -> dict[str, Any]:
    """Every argument of the `JointEncoder` that a stage's record describes, in plain types.

    Raises:
        CheckpointError: If the record is of a stage without f_inter.
    """
    if record.levels is None or record.volume_encoder is None:
        raise CheckpointError(f"stage {record.stage} trains f_intra alone; give a checkpoint of stage 2 or 3")
    given = dict(record.volume_encoder)
    axis = given.pop("attention_axis", "slice")  # records older than the choice have no such key
    return {
        "levels": list(record.levels),
        "attention_axis": axis,
        "width": record.embedding_width,
        "options": volume_encoder_options(axis, given),
    }


def is_volume_file(content: object) -> bool:
    """Whether what ``torch.load`` gave is of this format, of any version."""
    return isinstance(content, Mapping) and str(content.get("format")).startswith(FORMAT.partition("/")[0] + "/")


def volume_module(content: Mapping[str, Any], path: Path) -> JointEncoder:
    """The module of a volume file, its weights not yet loaded.

    Args:
        content: What ``torch.load`` gave.
        path: Of the file, for messages.

    Raises:
        CheckpointError: If the format is of another version, parts of it are absent, or its options describe no model.
    """
    _check_format(content, path)
    try:
        return JointEncoder(**content["options"])
    except (ValueError, TypeError) as error:
        raise CheckpointError(
            f"{path}: its options describe no model of this version ({error}); export the checkpoint again"
        ) from error


def checkpoint_of_volume_file(content: Mapping[str, Any], path: Path) -> Checkpoint:
    """A volume file as the checkpoint of its stage, so that both start the same model.

    Args:
        content: What ``torch.load`` gave.
        path: Of the file.

    Raises:
        CheckpointError: As `volume_module`.
    """
    _check_format(content, path)
    options, card = content["options"], content.get("card") or {}
    try:
        inter = {"attention_axis": options["attention_axis"], **options["options"]}
        levels, width = tuple(options["levels"]), options["width"]
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: its options are not whole ({error!r}); export the checkpoint again") from error
    record = StageRecord(
        stage=card.get("stage") or 3,
        flavour=card.get("flavour") or "unknown",
        levels=levels,
        embedding_width=width,
        volume_encoder=inter,
    )
    return Checkpoint(path, dict(content["state"]), {}, record, train_phase=None, iteration=None, final=True)


def _check_format(content: Mapping[str, Any], path: Path) -> None:
    if content.get("format") != FORMAT:
        raise CheckpointError(
            f"{path}: has the format {content.get('format')!r}, this version reads {FORMAT!r}; "
            "read it with the version of vissl_jointssl that its card names"
        )
    absent = sorted({"options", "state"} - content.keys())
    if absent:
        raise CheckpointError(f"{path}: the parts {absent} are absent; export the checkpoint again")
