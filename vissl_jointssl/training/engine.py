"""One run of VISSL's engine, in a process of its own, watched from outside."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vissl_jointssl.run_signs import INTERRUPTED, LAST_WORDS, PROGRESS_FILE, STOP_PIPE, STOPPED
from vissl_jointssl.training.recipe import Recipe, RecipeError
from vissl_jointssl.training.stopping import RunStopped, signals_handed_on

LOG_FILE = "launch.log"
POLL_SECONDS = 0.5
TRAINING_PROGRAM = "vissl_jointssl.plugin.launch"


def machine_overrides(recipe: Recipe) -> list[str]:
    """Device, backend and number of processes, as Hydra overrides."""
    import torch

    gpus = torch.cuda.device_count()
    device = recipe.device if recipe.device != "auto" else ("gpu" if gpus else "cpu")
    if device == "gpu" and not gpus:
        raise RecipeError("device is gpu, but PyTorch sees none; give device=cpu or check the driver")
    processes = recipe.processes or (gpus if device == "gpu" else 1)
    overrides = [
        f"config.MACHINE.DEVICE={device}",
        f"config.DISTRIBUTED.BACKEND={'nccl' if device == 'gpu' else 'gloo'}",
        f"config.DISTRIBUTED.NUM_PROC_PER_NODE={processes}",
    ]
    if device == "cpu":
        overrides += ["config.DATA.PIN_MEMORY=False", "config.MODEL.AMP_PARAMS.USE_AMP=False"]
    return overrides


def run_engine(
    overrides: Sequence[str],
    folder: Path,
    label: str,
    keep_open: int | None = None,
    program: str = TRAINING_PROGRAM,
) -> None:
    """Run VISSL's engine in its own process, with a progress bar, its output in `launch.log`.

    Args:
        overrides: Its command line.
        folder: Its checkpoint folder.
        label: Name of the bar.
        keep_open: File descriptor that the process inherits, so that a lock lives as long as it does.
        program: Module that is run.

    Raises:
        RecipeError: If it fails, with its last words and the log's path.
        RunStopped: If a signal, to it or to this process, has stopped it in good order.
    """
    from tqdm import tqdm

    folder.mkdir(parents=True, exist_ok=True)
    progress, log = folder / PROGRESS_FILE, folder / LOG_FILE
    progress.unlink(missing_ok=True)
    command = [sys.executable, "-m", program, *overrides]
    # OpenMP's threads spin while they wait; beside a busy loader worker that halves the speed of a small machine.
    environment = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ}
    with log.open("ab") as output, signals_handed_on() as hand_on:
        inherited = [hand_on.pipe] if keep_open is None else [hand_on.pipe, keep_open]
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            pass_fds=inherited,
            env={**environment, STOP_PIPE: str(hand_on.pipe)},
        )
        try:
            shown: set[str] = set()
            with tqdm(desc=label, unit="step", dynamic_ncols=True) as bar:
                while process.poll() is None:
                    time.sleep(POLL_SECONDS)
                    show_progress(bar, progress, shown)
                    hand_on.answer(bar, process)
                show_progress(bar, progress, shown)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    if process.returncode == 0:
        return
    said = log.read_text(encoding="utf-8", errors="replace").rstrip()
    said = re.split(r"\n\S*multiprocessing/resource_tracker\.py:", said)[0]  # which cleans up after a killed process
    last = said.rpartition(LAST_WORDS)[2] if LAST_WORDS in said else said.rpartition("\n")[2]
    if process.returncode in (STOPPED, INTERRUPTED):
        raise RunStopped(process.returncode, f"{label}: {last}")
    if -process.returncode in hand_on.received:  # before it listened, or an engine that takes no steps
        code = INTERRUPTED if -process.returncode == signal.SIGINT else STOPPED
        raise RunStopped(code, f"{label} was stopped before its first step; the same command starts it again")
    raise RecipeError(f"{label} failed (exit {process.returncode}): {last}\nthe whole log: {log}")


def show_progress(bar: Any, progress: Path, shown: set[str]) -> None:
    """Bring a bar up to date with the progress file, and print each of its warnings once, above the bar.

    Args:
        bar: tqdm's.
        progress: The file; nothing happens before it is there.
        shown: Warnings printed so far; added to.
    """
    try:
        state = json.loads(progress.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return  # not yet at its first step
    if bar.total != state["steps"]:
        bar.reset(total=state["steps"])
        bar.initial = bar.n = state["step"]  # a resumed run is timed from where it goes on
    bar.n = state["step"]
    if state["loss"] is not None:
        numbers = {"loss": state["loss"], **state["beside_loss"]}
        bar.set_postfix({name: f"{value:.3f}" for name, value in numbers.items()}, refresh=False)
    for warning in state["warnings"]:
        if warning not in shown:
            shown.add(warning)
            bar.write(f"{bar.desc}: {warning}", file=sys.stderr)
    bar.refresh()
