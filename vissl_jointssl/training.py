"""`jointssl train`: runs the stages of a recipe one after the other and hands their checkpoints over.

Each stage is one run of VISSL's engine in a process of its own, so it can be killed, and one folder, so it can be
resumed. VISSL is never imported here: this side only watches the files that a stage leaves.
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from vissl_jointssl.spelling import nearest

PROGRESS_FILE = "progress.json"  # written by plugin/hooks/progress.py
SETTINGS_FILE = "settings.json"
LOG_FILE = "launch.log"
POLL_SECONDS = 0.5
DEVICES = ("auto", "cpu", "gpu")


class RecipeError(ValueError):
    """A recipe cannot be run as it stands; the message names the key, file or stage and the next step."""


@dataclass(frozen=True)
class Stage:
    """One stage of a recipe: a VISSL config, and overrides of it in Hydra's words."""

    config: str
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True)
class Recipe:
    """Which stages to run, on what, and where to.

    Attributes:
        run: Folder of the run; stage N has the folder `stageN` in it.
        manifest: `manifest.csv` of the prepared data.
        stages: In order; each starts from the last checkpoint of the one before.
        device: `cpu`, `gpu`, or `auto`: a GPU if there is one.
        processes: Training processes; 0 means one per GPU, or one on CPU.
        overrides: For every stage, before its own.
    """

    run: Path
    manifest: Path
    stages: tuple[Stage, ...]
    device: str = "auto"
    processes: int = 0
    overrides: tuple[str, ...] = ()

    def folder(self, position: int) -> Path:
        """Folder of the stage at a position counted from 0."""
        return self.run / f"stage{position + 1}"


@dataclass(frozen=True)
class PlannedStage:
    """What `train` is going to do about one stage: `finished`, `resume` or `start`."""

    position: int
    stage: Stage
    folder: Path
    state: str


def read_recipe(path: Path, changes: Sequence[str] = ()) -> Recipe:
    """Read a recipe's YAML.

    Args:
        path: The file.
        changes: `key=value` for `run`, `manifest`, `device` or `processes`, taking the place of the file's.

    Raises:
        RecipeError: With every fault at once.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise RecipeError(f"{path}: cannot be read as YAML ({error}); recipes lie in configs/recipes") from error
    if not isinstance(content, dict):
        raise RecipeError(f"{path}: holds no mapping; recipes lie in configs/recipes")
    faults = []
    for change in changes:
        key, separator, value = change.partition("=")
        if not separator or key not in ("run", "manifest", "device", "processes"):
            faults.append(f"{change!r} changes nothing; give run=, manifest=, device= or processes=")
        else:
            content[key] = int(value) if key == "processes" and value.isdigit() else value
    known = [field.name for field in fields(Recipe)]
    faults += [f"{key!r} is read by nothing{nearest(key, known)}" for key in content if key not in known]
    faults += [f"{key!r} is missing" for key in ("run", "manifest", "stages") if not content.get(key)]
    stages = []
    for position, item in enumerate(content.get("stages") or [], start=1):
        if (
            not isinstance(item, dict)
            or not isinstance(item.get("config"), str)
            or item.keys() - {"config", "overrides"}
        ):
            faults.append(f"stage {position} is {item!r}; expected `config: NAME` and, if needed, a list `overrides`")
        else:
            stages.append(Stage(item["config"], tuple(item.get("overrides") or ())))
    if content.get("device", "auto") not in DEVICES:
        faults.append(f"device is {content['device']!r}; expected one of {DEVICES}")
    if not isinstance(content.get("processes", 0), int) or content.get("processes", 0) < 0:
        faults.append(f"processes is {content['processes']!r}; expected a number, 0 for one per GPU")
    if faults:
        raise RecipeError("".join([f"{path}:", *(f"\n  - {fault}" for fault in faults)]))
    return Recipe(
        run=Path(content["run"]),
        manifest=Path(content["manifest"]),
        stages=tuple(stages),
        device=content.get("device", "auto"),
        processes=content.get("processes", 0),
        overrides=tuple(content.get("overrides") or ()),
    )


def plan(recipe: Recipe) -> list[PlannedStage]:
    """What is finished, what goes on and what starts.

    Raises:
        RecipeError: If a stage's folder was made with other settings, or if a stage is done whose parent is not.
    """
    from vissl_jointssl.checkpoints import is_finished, newest_checkpoint

    planned: list[PlannedStage] = []
    for position, stage in enumerate(recipe.stages):
        folder = recipe.folder(position)
        if is_finished(folder):
            state = "finished"
        else:
            state = "resume" if newest_checkpoint(folder) else "start"
        if state != "start":
            _check_settings(recipe, stage, folder)
        earlier = [one for one in planned if one.state != "finished"]
        if state != "start" and earlier:
            raise RecipeError(
                f"{folder} has checkpoints, but {earlier[0].folder}, which it starts from, is not finished; "
                f"delete {folder} to train it anew, or choose another run="
            )
        planned.append(PlannedStage(position, stage, folder, state))
    return planned


def train(recipe: Recipe, say: Callable[[str], None]) -> Path:
    """Run every stage that is not finished.

    Args:
        recipe: What to run.
        say: Receives each line meant for a person.

    Returns:
        The last stage's final checkpoint.

    Raises:
        RecipeError: If the recipe cannot be run, a stage fails, or another process is training in this folder.
    """
    from vissl_jointssl.checkpoints import newest_checkpoint

    if not recipe.manifest.is_file():
        raise RecipeError(f"manifest {recipe.manifest} does not exist; `jointssl prepare` writes one")
    recipe.run.mkdir(parents=True, exist_ok=True)
    with _only_one(recipe.run) as lock:
        planned = plan(recipe)
        machine = machine_overrides(recipe)
        say(f"{recipe.run}: {len(planned)} stages on {'GPU' if 'config.MACHINE.DEVICE=gpu' in machine else 'CPU'}")
        for item in planned:
            start = "prepared data" if item.position == 0 else f"{recipe.folder(item.position - 1)}'s last checkpoint"
            doing = {
                "finished": "finished, skipped",
                "resume": "goes on where it stopped",
                "start": f"starts from {start}",
            }
            say(f"  {item.position + 1}. {item.stage.config}: {doing[item.state]} -> {item.folder}")
        parent: Path | None = None
        for item in planned:
            _check_parent(item, parent)
            if item.state != "finished":
                item.folder.mkdir(parents=True, exist_ok=True)
                settings = json.dumps(_settings(recipe, item.stage), indent=1)
                (item.folder / SETTINGS_FILE).write_text(settings, encoding="utf-8")
                overrides = [*stage_overrides(recipe, item, parent), *machine]
                run_engine(overrides, item.folder, f"stage {item.position + 1} of {len(planned)}", keep_open=lock)
            parent = newest_checkpoint(item.folder)
    assert parent is not None  # run_engine raises unless its stage has finished
    return parent


def stage_overrides(recipe: Recipe, item: PlannedStage, parent: Path | None) -> list[str]:
    """The command line of one stage, without the machine's part."""
    overrides = [
        f"config={item.stage.config}",
        f"config.DATA.TRAIN.DATA_PATHS=['{recipe.manifest}']",
        f"config.CHECKPOINT.DIR='{item.folder}'",
    ]
    if parent is not None:
        overrides.append(f"config.MODEL.WEIGHTS_INIT.PARAMS_FILE='{parent}'")
    return [*overrides, *recipe.overrides, *item.stage.overrides]


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


def run_engine(overrides: Sequence[str], folder: Path, label: str, keep_open: int | None = None) -> None:
    """Run VISSL's engine in its own process, with a progress bar, its output in `launch.log`.

    Args:
        overrides: Its command line.
        folder: Its checkpoint folder.
        label: Name of the bar.
        keep_open: File descriptor that the process inherits, so that a lock lives as long as it does.

    Raises:
        RecipeError: If it fails, with its last words and the log's path.
    """
    from tqdm import tqdm

    folder.mkdir(parents=True, exist_ok=True)
    progress, log = folder / PROGRESS_FILE, folder / LOG_FILE
    progress.unlink(missing_ok=True)
    command = [sys.executable, "-m", "vissl_jointssl.plugin.launch", *overrides]
    inherited = () if keep_open is None else (keep_open,)
    with log.open("ab") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, pass_fds=inherited
        )
        try:
            with tqdm(desc=label, unit="step", dynamic_ncols=True) as bar:
                while process.poll() is None:
                    time.sleep(POLL_SECONDS)
                    _show(bar, progress)
                _show(bar, progress)
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
    if process.returncode != 0:
        lines = log.read_text(encoding="utf-8", errors="replace").rstrip().splitlines()
        last = lines[-1] if lines else "it said nothing"
        raise RecipeError(f"{label} failed (exit {process.returncode}): {last}\nthe whole log: {log}")


def _show(bar: Any, progress: Path) -> None:
    try:
        state = json.loads(progress.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return  # not yet at its first step
    if bar.total != state["steps"]:
        bar.reset(total=state["steps"])
        bar.initial = bar.n = state["step"]  # a resumed run is timed from where it goes on
    bar.n = state["step"]
    if state["loss"] is not None:
        bar.set_postfix(loss=f"{state['loss']:.3f}", refresh=False)
    bar.refresh()


def _settings(recipe: Recipe, stage: Stage) -> dict[str, Any]:
    return {
        "config": stage.config,
        "overrides": [*recipe.overrides, *stage.overrides],
        "manifest": str(recipe.manifest),
    }


def _check_settings(recipe: Recipe, stage: Stage, folder: Path) -> None:
    path = folder / SETTINGS_FILE
    if not path.exists():
        return
    before, now = json.loads(path.read_text(encoding="utf-8")), _settings(recipe, stage)
    changed = [key for key in now if now[key] != before.get(key)]
    if changed:
        details = "; ".join(f"{key} was {before.get(key)!r} and is now {now[key]!r}" for key in changed)
        raise RecipeError(
            f"{folder} was made with other settings ({details}); choose another run=, or delete the folder"
        )


def _check_parent(item: PlannedStage, parent: Path | None) -> None:
    """A finished or half-finished stage must come from the parent that lies beside it."""
    from vissl_jointssl.checkpoints import newest_checkpoint, read_checkpoint, sha256

    own = newest_checkpoint(item.folder)
    if parent is None or item.state == "start" or own is None:
        return
    record = read_checkpoint(own).record
    if record is not None and record.parent != sha256(parent):
        raise RecipeError(
            f"{own} did not start from {parent}, which has been trained anew since; "
            f"delete {item.folder} to train it anew"
        )


@contextmanager
def _only_one(folder: Path) -> Iterator[int]:
    """Hold the folder's lock; a stage's process inherits it, so an orphan of a killed run still holds it."""
    descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RecipeError(f"{folder}: another process is training here; wait for it or end it") from error
        yield descriptor
    finally:
        os.close(descriptor)
