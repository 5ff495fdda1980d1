"""`jointssl train --plan`: takes a few steps of every stage in a scratch folder, and says what the recipe takes."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vissl_jointssl.run_signs import STEP_MEASURES_FILE
from vissl_jointssl.training.chain import PlannedStage, check_manifests, stage_overrides
from vissl_jointssl.training.engine import machine_overrides, run_engine
from vissl_jointssl.training.free_room import Room, look_around, nearest_folder, size_of_cache
from vissl_jointssl.training.recipe import Recipe, RecipeError
from vissl_jointssl.training.stage_estimate import (
    StageEstimate,
    estimate_stage,
    show_bytes,
    stage_advice,
    stage_problems,
)

PROGRAM = "vissl_jointssl.plugin.measured_run"
NODES, RANKS_OF_A_NODE = 8, 4  # of the machines to say the time for; the paper's has 4 GPUs
_NO_MEMORY = re.compile(r"out of memory|not enough memory|can't allocate memory|SIGKILL|\(exit -9\)")


@dataclass(frozen=True)
class Preflight:
    """What a recipe takes on this machine and on others.

    Attributes:
        stages: In the recipe's order.
        room: What was free before.
        cache: Bytes of all prepared data; stages share it.
        problems: What will not work, each with the next step.
        advice: What would work better.
    """

    stages: tuple[StageEstimate, ...]
    room: Room
    cache: int
    problems: tuple[str, ...]
    advice: tuple[str, ...]

    @property
    def seconds(self) -> float:
        """All stages, on this machine."""
        return sum(stage.seconds for stage in self.stages)

    @property
    def checkpoints(self) -> int:
        """Bytes that all stages leave."""
        return sum(stage.checkpoint * stage.checkpoints for stage in self.stages)

    @property
    def seconds_at(self) -> dict[int, float | None]:
        """All stages by number of ranks; None where a stage has too few samples for a step."""
        sizes = self.stages[0].seconds_at
        each = {size: [stage.seconds_at[size] for stage in self.stages] for size in sizes}
        return {size: None if None in times else sum(filter(None, times)) for size, times in each.items()}

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        sums = {"seconds": self.seconds, "checkpoints": self.checkpoints, "seconds_at": self.seconds_at}
        return {**asdict(self), "total": sums}


def look_ahead(recipe: Recipe) -> Preflight:
    """Measure every stage, finished or not, from random weights; the run's folder stays as it is.

    Raises:
        RecipeError: If the recipe cannot be run for another reason than memory.
        RunStopped: If a signal has ended it.
    """
    check_manifests(recipe)
    room = look_around(recipe.run)
    stages = []
    with tempfile.TemporaryDirectory(prefix=".jointssl-plan-", dir=nearest_folder(recipe.run)) as scratch:
        for position, stage in enumerate(recipe.stages):
            item = PlannedStage(position, stage, Path(scratch) / f"stage{position + 1}", "start")
            measured, wanted = _measure(recipe, item)
            ranks = measured["ranks"]
            sizes = tuple(sorted({1, ranks, RANKS_OF_A_NODE, NODES * max(ranks, RANKS_OF_A_NODE)}))
            cache = size_of_cache(recipe.manifests_of(stage))
            stages.append(estimate_stage(stage.config, measured, room, cache, sizes, wanted))
    manifests = dict.fromkeys(path for stage in recipe.stages for path in recipe.manifests_of(stage))
    problems = [words for stage in stages for words in stage_problems(stage, room)]
    advice = [words for stage in stages for words in stage_advice(stage, room)]
    found = Preflight(tuple(stages), room, size_of_cache(manifests), tuple(problems), tuple(advice))
    return with_disk_problem(found, recipe.run)


def with_disk_problem(found: Preflight, run: Path) -> Preflight:
    """The same, and whether its checkpoints have room."""
    if found.checkpoints <= found.room.disk:
        return found
    words = (
        f"{run}: {sum(stage.checkpoints for stage in found.stages)} checkpoints take {show_bytes(found.checkpoints)}, "
        f"and {show_bytes(found.room.disk)} are free on that disk: raise config.CHECKPOINT.CHECKPOINT_FREQUENCY in the "
        "recipe's overrides, or choose another run="
    )
    return Preflight(found.stages, found.room, found.cache, (*found.problems, words), found.advice)


def _measure(recipe: Recipe, item: PlannedStage) -> tuple[Mapping[str, Any], int | None]:
    """What a stage's steps took, and its batch by the config if only a smaller one found memory."""
    label = f"measuring stage {item.position + 1} of {len(recipe.stages)}"
    overrides = [*stage_overrides(recipe, item, None), *machine_overrides(recipe)]
    file = item.folder / STEP_MEASURES_FILE
    smaller: list[str] = []
    wanted: int | None = None
    while True:
        try:
            run_engine([*overrides, *smaller], item.folder, label, program=PROGRAM)
        except RecipeError as error:
            batch = _read(file)["facts"]["batch"] if file.exists() else 1
            if not _NO_MEMORY.search(str(error)) or batch == 1:
                raise RecipeError(str(error).partition("\nthe whole log:")[0]) from error
            wanted = wanted or batch
            smaller = [f"config.DATA.TRAIN.BATCHSIZE_PER_REPLICA={batch // 2}"]
            shutil.rmtree(item.folder)
            continue
        measured = _read(file)
        shutil.rmtree(item.folder)  # a checkpoint is large
        return measured, wanted


def _read(file: Path) -> Mapping[str, Any]:
    content: Mapping[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return content
