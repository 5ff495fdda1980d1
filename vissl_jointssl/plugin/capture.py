"""A training step that could not be taken, in one file that any machine can take again: `jointssl replay`."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor

from vissl_jointssl.checkpoints import DamagedFileError, load_plain, save_atomically

FORMAT = 1
_FORMAT_KEY = "jointssl_capture"


class CaptureError(ValueError):
    """A capture cannot be replayed; the message names the file, what was found and what to do next."""


@dataclass(frozen=True)
class Capture:
    """One rank's part of a step, from before the step; tensors on the CPU.

    Attributes:
        rank: The rank that wrote it.
        faulty_ranks: Ranks on which something was first found that is not finite.
        iteration: Training iteration, counted from 0.
        said: What the run said when it stopped.
        samples: Samples of this rank that may be at fault, by name: the bad ones of an input, else the whole batch.
        indices: Index of every row of the batch in the data set, `(rows,)`.
        batch: Input of the model: a tensor, or one per view.
        target: What the loss got beside the output.
        model: Weights and buffers by name.
        loss: Buffers by name.
        random: State of the CPU's generator before the forward pass, and of the GPU's or None.
        scale: Of the mixed-precision gradients; None for a run in full precision.
        config: The run's, as YAML.
    """

    rank: int
    faulty_ranks: list[int]
    iteration: int
    said: str
    samples: list[str]
    indices: Tensor
    batch: Any
    target: Any
    model: dict[str, Tensor]
    loss: dict[str, Tensor]
    random: tuple[Tensor, Tensor | None]
    scale: float | None
    config: str


def capture_file(folder: Path, rank: int) -> Path:
    """Where a rank's capture lies. Not *.torch: VISSL takes such files for checkpoints."""
    return folder / f"capture_rank{rank}.pt"


def write_capture(capture: Capture, path: Path) -> None:
    """Write it whole or not at all, with nothing in it that `weights_only=True` would refuse.

    Raises:
        OSError, RuntimeError: If it cannot be written.
    """
    content = {item.name: on_cpu(getattr(capture, item.name)) for item in fields(Capture)}
    save_atomically({_FORMAT_KEY: FORMAT, **content}, path)


def read_capture(path: Path) -> Capture:
    """Read what `write_capture` wrote; only tensors and plain containers are unpickled.

    Raises:
        CaptureError: If it is missing, damaged, another kind of file, or of another version.
    """
    if not path.is_file():
        raise CaptureError(f"{path}: no such file; captures are capture_rank*.pt in the run's config.CHECKPOINT.DIR")
    try:
        content = load_plain(path)
    except pickle.UnpicklingError as error:
        raise CaptureError(f"{path}: refused, because it holds more than tensors and plain containers") from error
    except DamagedFileError as error:
        raise CaptureError(f"{path}: damaged, or no capture ({error}); copy it again") from error
    if not isinstance(content, dict) or _FORMAT_KEY not in content:
        raise CaptureError(f"{path}: not a capture; give a capture_rank*.pt that a stopped run left")
    names = {item.name for item in fields(Capture)}
    if content.pop(_FORMAT_KEY) != FORMAT or set(content) != names:
        raise CaptureError(f"{path}: written by another version of vissl_jointssl; replay it with that one")
    return Capture(**content)


def on_cpu(value: Any) -> Any:
    """Copies on the CPU of all tensors in nested lists, tuples and mappings; everything else as it is."""
    if isinstance(value, Tensor):
        return value.detach().cpu().clone()
    if isinstance(value, Mapping):
        return {key: on_cpu(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(on_cpu(one) for one in value)
    return value


def config_text(config: Mapping[str, Any]) -> str:
    """A run's config as YAML of plain types."""
    return yaml.safe_dump(_plain(config), sort_keys=False)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return str(value)  # a torch.dtype in MODEL.FSDP_CONFIG (vissl/utils/hydra_config.py:64)
