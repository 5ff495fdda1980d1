"""Epochs that can be killed: the state is on disk after each, and each draws from (seed, epoch) alone."""

from __future__ import annotations

import hashlib
import pickle
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vissl_jointssl.checkpoints import CheckpointError, DamagedFileError, first_line, load_plain, save_atomically

STATE_FILE = "state.pt"


def fit(
    run_epoch: Callable[[int], float],
    epochs: int,
    parts: Mapping[str, Any],
    folder: Path,
    seed: int,
    progress: Callable[[str, int, int], None],
) -> tuple[float, ...]:
    """Run what is left of the epochs.

    A run that was killed and goes on gives what an uninterrupted one gives, on CPU to the last bit: every random
    number generator is set from (seed, epoch) before each epoch, and all else that changes is in `parts`.

    Args:
        run_epoch: Takes the number of the epoch from 0, returns its mean loss.
        epochs: How many in all.
        parts: What changes, by name, each with `state_dict` and `load_state_dict`: model, optimizer, schedule.
        folder: Where the state lies between epochs.
        seed: Of the run.
        progress: See `task.Progress`.

    Returns:
        The loss of every epoch, those of earlier processes included.

    Raises:
        CheckpointError: If the state on disk cannot be read.
        FloatingPointError: If a loss is not finite; the state of the last good epoch stays.
    """
    losses: list[float] = []
    path = folder / STATE_FILE
    if path.is_file():
        state = _read_state(path)
        losses = list(state["losses"])
        for name, part in parts.items():
            part.load_state_dict(state["parts"][name])
    for epoch in range(len(losses), epochs):
        progress("epoch", epoch, epochs)
        seed_everything(seed, epoch)
        loss = run_epoch(epoch)
        if not np.isfinite(loss):
            raise FloatingPointError(
                f"the loss of epoch {epoch} is {loss}; lower options.learning_rate, or look at the labels"
            )
        losses.append(float(loss))
        save_atomically({"losses": losses, "parts": {name: part.state_dict() for name, part in parts.items()}}, path)
    progress("epoch", epochs, epochs)
    return tuple(losses)


def _read_state(path: Path) -> dict[str, Any]:
    """Only tensors and plain containers are unpickled: a run's folder may come from elsewhere."""
    try:
        state: dict[str, Any] = load_plain(path)
    except (pickle.UnpicklingError, DamagedFileError) as error:
        raise CheckpointError(
            f"{path}: not the state of a run that was killed ({first_line(error)}); delete it, and the run begins anew"
        ) from error
    return state


def seed_everything(*parts: int) -> int:
    """Set Python's, NumPy's and PyTorch's generators from numbers; returns the seed, for loaders and samplers."""
    digest = hashlib.sha256("/".join(str(part) for part in parts).encode()).digest()
    seed = int.from_bytes(digest[:4], "big")
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    return seed
