"""The stages of a recipe, one after the other, each handing its checkpoint to the next.

Each stage is one run of VISSL's engine in a process of its own, so it can be killed, and one folder, so it can be
resumed.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vissl_jointssl.checkpoints import is_finished, newest_checkpoint, read_checkpoint, sha256
from vissl_jointssl.training.engine import machine_overrides, run_engine
from vissl_jointssl.training.recipe import Recipe, RecipeError, Stage

SETTINGS_FILE = "settings.json"


@dataclass(frozen=True)
class PlannedStage:
    """What `train` is going to do about one stage: `finished`, `resume` or `start`."""

    position: int
    stage: Stage
    folder: Path
    state: str


def plan(recipe: Recipe) -> list[PlannedStage]:
    """What is finished, what goes on and what starts.

    Raises:
        RecipeError: If a stage's folder was made with other settings, or if a stage is done whose parent is not.
    """
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
    check_manifests(recipe)
    recipe.run.mkdir(parents=True, exist_ok=True)
    with _only_one(recipe.run) as lock:
        planned = plan(recipe)
        machine = machine_overrides(recipe)
        announce(recipe, planned, say)
        parent: Path | None = None
        for item in planned:
            _check_parent(item, parent)
            if item.state != "finished":
                item.folder.mkdir(parents=True, exist_ok=True)
                settings = json.dumps(_settings(recipe, item.stage), indent=1)
                (item.folder / SETTINGS_FILE).write_text(settings, encoding="utf-8")
                overrides = [*stage_overrides(recipe, item, parent), *machine]
                run_engine(overrides, item.folder, f"stage {item.position + 1} of {len(planned)}", keep_open=lock)
                if not is_finished(item.folder):
                    raise RecipeError(
                        f"{item.folder} has no final checkpoint though its process ended well; see its log"
                    )
            parent = newest_checkpoint(item.folder)
    assert parent is not None  # a recipe has at least one stage, and each has finished
    return parent


def check_manifests(recipe: Recipe) -> None:
    """Look whether all data of a recipe is there.

    Raises:
        RecipeError: Naming every manifest that is not.
    """
    manifests = dict.fromkeys(path for stage in recipe.stages for path in recipe.manifests_of(stage))
    absent = [str(path) for path in manifests if not path.is_file()]
    if absent:
        raise RecipeError(f"manifest {', '.join(absent)} does not exist; `jointssl prepare` writes one")


def announce(recipe: Recipe, planned: Sequence[PlannedStage], say: Callable[[str], None]) -> None:
    """Say what will be done about each stage."""
    device = "GPU" if "config.MACHINE.DEVICE=gpu" in machine_overrides(recipe) else "CPU"
    say(f"{recipe.run}: {len(planned)} stages on {device}")
    for item in planned:
        start = f"{recipe.folder(item.position - 1)}'s last checkpoint" if item.position else "prepared data"
        doing = {"finished": "finished, skipped", "resume": "goes on where it stopped", "start": f"starts from {start}"}
        say(f"  {item.position + 1}. {item.stage.config}: {doing[item.state]} -> {item.folder}")


def stage_overrides(recipe: Recipe, item: PlannedStage, parent: Path | None) -> list[str]:
    """The command line of one stage, without the machine's part."""
    paths = ",".join(f"'{path}'" for path in recipe.manifests_of(item.stage))
    overrides = [
        f"config={item.stage.config}",
        f"config.DATA.TRAIN.DATA_PATHS=[{paths}]",
        f"config.CHECKPOINT.DIR='{item.folder}'",
    ]
    if parent is not None:
        overrides.append(f"config.MODEL.WEIGHTS_INIT.PARAMS_FILE='{parent}'")
    return [*overrides, *recipe.overrides, *item.stage.overrides]


def _settings(recipe: Recipe, stage: Stage) -> dict[str, Any]:
    manifests = recipe.manifests_of(stage)
    return {
        "config": stage.config,
        "overrides": [*recipe.overrides, *stage.overrides],
        "manifest": str(manifests[0]) if len(manifests) == 1 else [str(path) for path in manifests],
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
