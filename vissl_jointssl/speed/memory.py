"""`jointssl speed memory`: peak and time of f_intra's step that keeps everything, and of the one that recomputes."""

from __future__ import annotations

import json
import logging
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vissl_jointssl.speed.measures import Settings
from vissl_jointssl.speed.timing import machine, machine_line

CONTESTANTS = {"plain": 0, "recomputed": 1}  # as `feature_maps` takes it
PACKAGES = ("torch", "torchvision")
MEMORY_SHARE, STEP_RATIO = "checkpointed_memory_share", "checkpointed_step_ratio"
TOLERANCE = {"cpu": 1e-5, "gpu": 1e-2}
"""Of gradients, by the length of the whole; a GPU adds up bf16 in another order each time."""

GPU_COMMAND = "jointssl speed memory --device gpu"
_MIB = 2**20
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StepSize:
    """Slices of a step, views counted apart, and their side in pixels."""

    slices: int
    side: int


CPU_SIZE = StepSize(64, 112)
GPU_SIZE = StepSize(6 * 2 * 64, 224)  # volumes, views, F


def measure(settings: Settings, size: StepSize | None = None) -> dict[str, Any]:
    """Both by turns, each turn in a process of its own, whose gradients are held together.

    Raises:
        ValueError: If a step does not end, for one because it finds no memory, or the gradients differ.
    """
    size = size or (GPU_SIZE if settings.device == "gpu" else CPU_SIZE)
    found: dict[str, list[dict[str, float]]] = {name: [] for name in CONTESTANTS}
    largest = 0.0
    with tempfile.TemporaryDirectory(prefix="jointssl-speed-") as name:
        scratch = Path(name)
        for turn in range(settings.repetitions):
            _log.info("turn %d of %d", turn + 1, settings.repetitions)
            for contestant in CONTESTANTS:
                found[contestant].append(_turn(contestant, size, settings.device, scratch))
            largest = max(largest, _difference(scratch, TOLERANCE[settings.device]))
    medians = {
        name: {key: statistics.median(turn[key] for turn in turns) for key in ("bytes", "seconds")}
        for name, turns in found.items()
    }
    plain, again = medians["plain"], medians["recomputed"]
    return {
        "what": "memory",
        "machine": machine(PACKAGES),
        "device": settings.device,
        "slices": size.slices,
        "side": size.side,
        "steps": medians,
        "turns": found,
        "largest_difference": largest,
        MEMORY_SHARE: again["bytes"] / plain["bytes"],
        STEP_RATIO: again["seconds"] / plain["seconds"],
    }


def table(measured: Mapping[str, Any]) -> str:
    """Peaks and times as lines; on a CPU with the command for the GPU's row."""
    lines = [
        machine_line(measured["machine"]),
        f"device: {measured['device']}; f_intra, {measured['slices']} slices of {measured['side']} x "
        f"{measured['side']}; gradients differ by {measured['largest_difference']:.1e} of their length",
        "",
        f"{'a step':12}{'peak':>12}{'time':>10}",
        *(f"{name:12}{of['bytes'] / _MIB:8.0f} MiB{of['seconds']:8.2f} s" for name, of in measured["steps"].items()),
        f"{100 * measured[MEMORY_SHARE]:.0f} % of the plain step's memory in {measured[STEP_RATIO]:.2f} times its time",
    ]
    if measured["device"] != "gpu":
        gpu = f"gpu, {GPU_SIZE.slices} slices of {GPU_SIZE.side} x {GPU_SIZE.side}"
        lines.append(f"{gpu} (F = 64, 6 volumes, 2 views): not measured; {GPU_COMMAND}")
    return "\n".join(lines)


def ratios(measured: Mapping[str, Any]) -> dict[str, float]:
    """For `jointssl speed all`."""
    return {MEMORY_SHARE: measured[MEMORY_SHARE], STEP_RATIO: measured[STEP_RATIO]}


def _turn(contestant: str, size: StepSize, device: str, scratch: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "vissl_jointssl.speed.memory_step", str(size.slices), str(size.side), device]
    command += [str(CONTESTANTS[contestant]), str(scratch / contestant)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode:
        last = (ended.stderr.strip().splitlines() or ["killed, as for lack of memory"])[-1]
        raise ValueError(
            f"the {contestant} step of {size.slices} slices of {size.side} x {size.side} failed "
            f"(exit {ended.returncode}): {last}; close what else takes memory"
        )
    turn: dict[str, float] = json.loads(ended.stdout)
    return turn


def _difference(scratch: Path, allowed: float) -> float:
    """Distance of the two gradients over the plain one's length."""
    plain, again = (torch.load(scratch / name, weights_only=True).double() for name in CONTESTANTS)
    difference = float((again - plain).norm() / plain.norm())
    if not difference <= allowed:  # NaN is not
        raise ValueError(
            f"the recomputed gradients differ from the plain ones by {difference:.1e} of their length, more than "
            f"{allowed:.0e}; nothing is compared"
        )
    return difference
