"""The checkpoint to export and the file to write, checked before anything is built."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from vissl_jointssl.checkpoints import Checkpoint, newest_checkpoint, read_checkpoint
from vissl_jointssl.export.account import ExportError
from vissl_jointssl.export.training_config import TrainingConfig, read_training_config

PYTORCH_SUFFIXES = (".pth", ".pt", ".torch")


@dataclass(frozen=True)
class Source:
    """A training checkpoint, what is known of its run, and where the export goes."""

    checkpoint: Checkpoint
    config: TrainingConfig
    out: Path

    @property
    def path(self) -> Path:
        """Of the checkpoint."""
        return self.checkpoint.path


def read_source(checkpoint: Path | str, out: Path | str, suffixes: Sequence[str] = PYTORCH_SUFFIXES) -> Source:
    """Read what is to be exported.

    Args:
        checkpoint: A checkpoint of any stage, ours or stock VISSL's, or the folder of a run: its newest one.
        out: File to write.
        suffixes: How the target's files may end.

    Raises:
        CheckpointError: If the checkpoint cannot be read.
        ExportError: If ``out`` would harm the training run or has another suffix, or if the configuration beside the
            checkpoint cannot be read.
    """
    path, out = Path(checkpoint), Path(out)
    if path.is_dir():
        newest = newest_checkpoint(path)
        if newest is None:
            raise ExportError(f"{path}: holds no checkpoint; give the folder of a stage or a .torch file")
        path = newest
    source = read_checkpoint(path)
    if out.suffix not in suffixes:
        raise ExportError(
            f"{out}: this target's files end in {' or '.join(suffixes)}, by which its readers know them; "
            f"write {out.with_suffix(suffixes[0]).name}"
        )
    if out.resolve() == path.resolve() or (out.suffix == ".torch" and out.resolve().parent == path.resolve().parent):
        raise ExportError(
            f"{out}: VISSL takes every .torch file beside a checkpoint for one of its own and would no longer resume "
            f"this run; write to another folder or end the name in .pth, such as {out.with_suffix('.pth').name}"
        )
    config = read_training_config(source.path)
    _check_config(source, config)
    return Source(source, config, out)


def dropped(source: Checkpoint, taken: Iterable[str]) -> tuple[str, ...]:
    """Every weight of a checkpoint that an export leaves behind, those of the heads too."""
    taken = set(taken)
    return (*(name for name in source.trunk if name not in taken), *(f"heads.{name}" for name in source.heads))


def own_copies(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights that share no storage: a tensor that is a view would drag its whole storage into the file."""
    return {name: weight.detach().clone() for name, weight in weights.items()}


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
