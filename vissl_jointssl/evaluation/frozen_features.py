"""Features of a network that does not train, kept on disk so that a killed run need not compute them again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import vissl_jointssl
from vissl_jointssl.atomic_file import replaced_at_once
from vissl_jointssl.evaluation.classification.inputs import LabelledInputs, batches
from vissl_jointssl.evaluation.task import Job


@torch.no_grad()
def frozen_features(
    job: Job,
    split: str,
    inputs: LabelledInputs,
    facts: Sequence[Any],
    encode: Callable[[Tensor], Tensor],
    width: int,
    batch_size: int,
    workers: int,
) -> np.ndarray:
    """Features of rows in their order.

    They lie in `features_<split>_<digest>.npy` of the run's folder; the digest is of all that decides them, and files
    of another digest go.

    Args:
        job: Its start, seed, device and folder count.
        split: For the file's name.
        inputs: The rows.
        facts: Options that change the features; plain values.
        encode: Volumes `(B, F, C, H, W)` on the device to `(samples, width)`.
        width: For no rows.
        batch_size: Volumes at once.
        workers: Processes that read.

    Returns:
        `(samples, width)`, float32.

    Raises:
        ValueError: If the kept features cannot be read.
    """
    path = job.folder / f"features_{split}_{_digest(job, inputs, facts)}.npy"
    for other in job.folder.glob(f"features_{split}_*.npy"):
        if other != path:
            other.unlink()
    if path.is_file():
        return _kept(path)
    found = [np.zeros((0, width), np.float32)]
    done = 0
    for volumes, _ in batches(inputs, range(len(inputs)), batch_size, workers):
        job.progress(f"features of {split}", done, len(inputs))
        found.append(encode(volumes.to(job.device)).float().cpu().numpy())
        done += len(volumes)
    features = np.concatenate(found)
    with replaced_at_once(path) as stream:
        np.save(stream, features)
    return features


def _kept(path: Path) -> np.ndarray:
    try:
        kept: np.ndarray = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path}: not the features of an earlier run ({error}); delete it") from error
    return kept


def _digest(job: Job, inputs: LabelledInputs, facts: Sequence[Any]) -> str:
    rows = [[entry.id, entry.sha256] for entry in inputs.entries]
    known = [vissl_jointssl.__version__, job.initialisation.sha256, job.seed, facts, rows]
    return hashlib.sha256(json.dumps(known).encode()).hexdigest()[:16]
