"""Runs of the engine to take times of: prepared scans, random start weights, and the process itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vissl_jointssl.checkpoints.importing import write_imported
from vissl_jointssl.preparation.pipeline import prepare
from vissl_jointssl.preparation.recipe import Recipe, Source
from vissl_jointssl.run_signs import LAST_WORDS
from vissl_jointssl.speed.synthetic_ct import write_synthetic_ct
from vissl_jointssl.training.recipe import RecipeError


@dataclass(frozen=True)
class StepTimes:
    """Seconds of each training step of a run, the first included.

    Args:
        steps: Whole steps.
        waits: The part of each step that it waited for data.
        peak: Most memory of the process, or on its GPU, bytes.
        others: What took turns with them, by name.
        parts: Parts of each step but the wait, by name; empty lists where something took turns.
        start_up: Seconds from the start of the program to its first step.
    """

    steps: tuple[float, ...]
    waits: tuple[float, ...]
    peak: int
    others: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    parts: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    start_up: float = 0.0


def prepare_scans(folder: Path, count: int, shape: tuple[int, int, int]) -> Path:
    """Make CT-like scans of (i, j, k) voxels, prepare them, and return their manifest."""
    scans = folder / "scans"
    scans.mkdir(parents=True)
    names = [f"ct{number:04d}" for number in range(count)]
    for number, name in enumerate(names):
        write_synthetic_ct(scans / f"{name}.nii.gz", shape, seed=number)
    sources = tuple(Source(name, f"{name}.nii.gz", patient=name) for name in names)
    return prepare(Recipe("speed", scans, sources), folder / "cache", jobs=1).path


def random_start(folder: Path) -> Path:
    """A ResNet-50 that nobody trained, as the checkpoint of a stage 0, from which stages 1 and 3 can start."""
    import torch
    from torchvision.models import resnet50

    torch.manual_seed(0)
    torch.save(resnet50(weights=None).state_dict(), folder / "random.pth")
    write_imported(folder / "random.pth", folder / "random.torch")
    return folder / "random.torch"


def timed_run(folder: Path, mode: str, overrides: Sequence[str], threads: int | None = None) -> StepTimes:
    """Run the engine in a process of its own, or in one for each rank.

    Args:
        folder: For the run's checkpoint and log.
        mode: One of `timed_engine.MODES`.
        overrides: Hydra's, but for the folder.
        threads: Of each rank; None leaves that to PyTorch.

    Returns:
        Times of rank 0.

    Raises:
        RecipeError: If it fails, with its last words.
    """
    folder.mkdir(parents=True)
    out, log = folder / "times.json", folder / "launch.log"
    command = [sys.executable, "-m", "vissl_jointssl.speed.timed_engine", str(out), mode, *overrides]
    command += [f"config.CHECKPOINT.DIR={folder}"]
    with log.open("wb") as output:
        # As `jointssl train` starts it; see training/engine.py.
        environment = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ}
        if threads is not None:
            environment["OMP_NUM_THREADS"] = str(threads)
        start = time.time()
        ended = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, check=False, env=environment)
    if ended.returncode:
        said = log.read_text(encoding="utf-8", errors="replace").rstrip()
        raise RecipeError(f"a timed run failed (exit {ended.returncode}): {said.rpartition(LAST_WORDS)[2][-2000:]}")
    found = json.loads(out.read_text(encoding="utf-8"))
    others, parts = ({name: tuple(times) for name, times in found[key].items()} for key in ("others", "parts"))
    return StepTimes(tuple(found["steps"]), tuple(found["waits"]), found["peak"], others, parts, found["began"] - start)
