"""A run of VISSL's engine whose steps are timed, alone or by turns with others; a program: OUT MODE OVERRIDES."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from vissl_jointssl.plugin.compat.bfloat16 import wants_bfloat16
from vissl_jointssl.plugin.hooks import hook_generator
from vissl_jointssl.plugin.hooks.step_timing import StepTimingHook
from vissl_jointssl.plugin.launch import command_line, launch_on_this_node, read_config
from vissl_jointssl.speed.ceiling import Ceiling, image_groups
from vissl_jointssl.speed.released_step import ReleasedStep

CEILING, RELEASED = "ceiling", "released"
OTHERS: dict[str, Callable[..., Callable[[], None]]] = {CEILING: Ceiling, RELEASED: ReleasedStep}
MODES = {"alone": (), "by_turns": (CEILING,), "three_by_turns": (CEILING, RELEASED)}
ALONE, BY_TURNS, THREE_BY_TURNS = MODES


class OtherOfTask:
    """What is compared with a task's steps, made for its last batch at the first call."""

    def __init__(self, make: Callable[..., Callable[[], None]]) -> None:
        self._make = make
        self._step: Callable[[], None] | None = None

    def __call__(self, task: Any) -> None:
        """One step, in the task's precision."""
        if self._step is None:
            self._step = self._make(image_groups(task.last_batch.sample["input"]), task.device, _half(task))
        self._step()


def _half(task: Any) -> torch.dtype | None:
    if wants_bfloat16(task.config.MODEL):
        return torch.bfloat16
    return None if task.amp_type is None else torch.float16


def timed_hooks(out: Path, mode: str, config: Any) -> list[Any]:
    """Those of every run, and the one that takes times behind them all."""
    return [*hook_generator(config), StepTimingHook(out, {name: OtherOfTask(OTHERS[name]) for name in MODES[mode]})]


def main(arguments: list[str]) -> None:
    """Run; times are written to the first argument, as `StepTimingHook` says."""
    out, mode, *overrides = arguments
    args, config = read_config(overrides)
    launch_on_this_node(config, args.node_id, args.engine_name, hooks=partial(timed_hooks, Path(out), mode))


if __name__ == "__main__":
    command_line(main)
