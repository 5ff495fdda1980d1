"""The start of a training run: nothing, or f_intra and perhaps f_inter out of a file, each weight accounted for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from vissl_jointssl.checkpoints import (
    SLICE_ENCODER_PREFIX,
    Checkpoint,
    CheckpointError,
    newest_checkpoint,
    read_checkpoint,
    sha256,
)
from vissl_jointssl.checkpoints.importing import import_resnet50, load_weights
from vissl_jointssl.models.volume_file import checkpoint_of_volume_file, is_volume_file


@dataclass(frozen=True)
class Initialisation:
    """Weights to start from.

    Attributes:
        name: In tables and folders.
        path: The file, or None for a random start.
        sha256: Of the file, or None.
        slice_encoder: A whole ResNet-50 under torchvision's names, without `fc.*`; None for a random start.
        checkpoint: The training checkpoint that it is or, of a volume file, was; or None. Of stage 2 or 3 it holds
            f_inter as well.
        account: What became of the file's weights, for the log.
    """

    name: str
    path: Path | None = None
    sha256: str | None = None
    slice_encoder: dict[str, Tensor] | None = None
    checkpoint: Checkpoint | None = None
    account: str = "random start"

    @property
    def has_volume_encoder(self) -> bool:
        """Whether f_inter is in the file."""
        return self.checkpoint is not None and self.checkpoint.record is not None and self.checkpoint.record.stage > 1


def read_initialisation(name: str, path: Path | None) -> Initialisation:
    """Read the weights behind a name.

    Args:
        name: For tables.
        path: A checkpoint of ours or VISSL's, a run's folder (its newest checkpoint), any ResNet-50 file that
            `jointssl import` reads, a file that `jointssl export --to torchvision` or `--to volume` wrote; None for a
            random start.

    Raises:
        CheckpointError: If the file holds no whole ResNet-50.
    """
    if path is None:
        return Initialisation(name)
    if path.is_dir():
        newest = newest_checkpoint(path)
        if newest is None:
            raise CheckpointError(f"{path}: holds no checkpoint; give the folder of a stage or a file")
        path = newest
    weights, account = import_resnet50(path)
    encoder = {key.removeprefix(SLICE_ENCODER_PREFIX): value for key, value in weights.items()}
    return Initialisation(name, path, sha256(path), encoder, _checkpoint(path), account.summary())


def _checkpoint(path: Path) -> Checkpoint | None:
    if path.suffix == ".torch":
        return read_checkpoint(path)
    content = load_weights(path)
    return checkpoint_of_volume_file(content, path) if is_volume_file(content) else None
