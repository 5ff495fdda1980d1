"""Reading a VISSL training checkpoint without VISSL, and without running code found in it.

The file's structure is set by ``vissl/hooks/log_hooks.py:450`` and ``vissl/models/base_ssl_model.py:395``.
"""

from __future__ import annotations

import hashlib
import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from torch import Tensor

from vissl_jointssl.checkpoints.integrity import EMPTY, NO_END, damage
from vissl_jointssl.checkpoints.loading import DamagedFileError, first_line, load_plain
from vissl_jointssl.checkpoints.record import CheckpointError, StageRecord

RECORD_HOOK = "StagedTrainingHook"
SLICE_ENCODER_PREFIX = "_feature_blocks."
VOLUME_ENCODER_PREFIX = "volume_encoder."
SLICE_PROJECTION = "slice_projection.weight"  # a Linear's weight, (D, E)
COUNTER = "num_batches_tracked"  # BatchNorm's; old files lack it, and VISSL does not take it over

_FEATURE_EXTRACTOR_PREFIX = "base_model."
_FOREIGN = "a ResNet-50 of another library becomes one by `jointssl import FILE --out stage0.torch`"
FINAL_NAME = re.compile(r"model_final_checkpoint_phase(\d+)\.torch")


@dataclass(frozen=True)
class Checkpoint:
    """One VISSL training checkpoint: its weights and where they come from.

    Attributes:
        path: The file it was read from.
        trunk: Weights of the trunk by name, without the feature extractor's prefix.
        heads: Weights of the heads by name, such as ``0.prototypes0.weight``.
        record: What our training recorded, or None for a checkpoint of stock VISSL.
        train_phase: Index of the last training phase (epoch), or None where the file does not say.
        iteration: Training iterations done so far, or None where the file does not say.
        final: True when training ran to its end.
    """

    path: Path
    trunk: dict[str, Tensor]
    heads: dict[str, Tensor]
    record: StageRecord | None
    train_phase: int | None
    iteration: int | None
    final: bool


def read_checkpoint(path: Path | str) -> Checkpoint:
    """Read a VISSL training checkpoint to the CPU.

    Only tensors and plain containers are unpickled (``weights_only=True``): a file from elsewhere cannot run code.

    Args:
        path: A ``.torch`` file that VISSL wrote; its ``checkpoint.torch`` link is followed.

    Raises:
        CheckpointError: If the file is missing, empty, truncated, damaged, or is something else.
    """
    path = Path(path)
    content = _load(path)
    trunk, heads, record = _weights_and_record(path, content)
    return Checkpoint(
        path=path,
        trunk={name.removeprefix(_FEATURE_EXTRACTOR_PREFIX): weight for name, weight in trunk.items()},
        heads=dict(heads),
        record=record,
        train_phase=content.get("train_phase_idx"),
        iteration=content.get("iteration"),
        final=FINAL_NAME.fullmatch(path.resolve().name) is not None,
    )


def sha256(path: Path | str) -> str:
    """Hexadecimal SHA-256 of a file: how a stage names its parent."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def load_content(path: Path | str, source: IO[bytes] | None = None, map_location: Any = "cpu") -> Any:
    """What a file that PyTorch wrote holds; only tensors and plain containers are unpickled.

    Args:
        path: The file, for messages; and to read, unless it is open already.
        source: The open file.
        map_location: Where the tensors go.

    Raises:
        CheckpointError: If it holds anything else, or cannot be read.
    """
    try:
        return load_plain(source or Path(path), map_location=map_location)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path}: refused, because it holds more than tensors and plain containers ({first_line(error)}); "
            "expected a training checkpoint that VISSL wrote"
        ) from error
    except DamagedFileError as error:
        raise CheckpointError(f"{path}: the file is damaged ({error}); copy it again, or repeat the run") from error


def _load(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; train the stage first, or correct the path")
    cause = damage(path)
    if cause is not None:
        raise CheckpointError(f"{path}: {_what_to_do(path, cause)}")
    content = load_content(path)
    if not isinstance(content, dict):
        raise CheckpointError(
            f"{path}: holds a {type(content).__name__}, not a VISSL training checkpoint; "
            "pass the model_*.torch file of a training run"
        )
    return content


def _what_to_do(path: Path, cause: str) -> str:
    """Damage with the next step, which depends on where the file may come from."""
    if cause == EMPTY:
        return "the file is empty (0 bytes); delete it and resume or repeat the run that left it"
    if cause.startswith(NO_END):
        with path.open("rb") as stream:
            begins = stream.read(4)
        if begins != b"PK\x03\x04":
            return f"not a PyTorch checkpoint (no zip archive); expected a .torch file that VISSL wrote; {_FOREIGN}"
        return (
            f"the file is truncated ({cause}); "
            "copy it again, or delete it and resume the run that was killed while writing it"
        )
    return f"the file is damaged ({cause}); copy it again, or repeat the run"


def _weights_and_record(
    path: Path, content: Mapping[str, Any]
) -> tuple[dict[str, Tensor], dict[str, Tensor], StageRecord | None]:
    kind = content.get("type", "consolidated")
    if kind != "consolidated":
        raise CheckpointError(
            f"{path}: a checkpoint of type {kind!r} holds no whole model; consolidate it first "
            "(VISSL: extra_scripts/convert_sharded_checkpoint.py)"
        )
    trunk = _inside(content, "classy_state_dict", "base_model", "model", "trunk")
    heads = _inside(content, "classy_state_dict", "base_model", "model", "heads")
    if not trunk:
        raise CheckpointError(
            f"{path}: not a VISSL training checkpoint: found keys {sorted(map(str, content))[:5]}, expected "
            "classy_state_dict -> base_model -> model -> trunk; pass the model_*.torch file of a training run; "
            f"{_FOREIGN}"
        )
    for name, weight in (*trunk.items(), *heads.items()):
        if not isinstance(name, str) or not isinstance(weight, Tensor):
            raise CheckpointError(
                f"{path}: not a VISSL training checkpoint: among its weights is {name!r} of type "
                f"{type(weight).__name__}, expected names of tensors; {_FOREIGN}"
            )
    stored = _inside(content, "classy_state_dict", "hooks", RECORD_HOOK, "record")
    try:
        return trunk, heads, StageRecord.from_dict(stored) if stored else None
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error


def _inside(content: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    """The dictionary under nested keys; empty where the file has something else there."""
    found: Any = content
    for key in keys:
        found = found.get(key) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else {}
