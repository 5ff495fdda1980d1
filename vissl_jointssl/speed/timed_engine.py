"""A run of VISSL's engine whose steps are timed, alone or by turns with the ceiling; a program: OUT MODE OVERRIDES."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch

from vissl_jointssl.plugin.hooks import hook_generator
from vissl_jointssl.plugin.hooks.step_timing import StepTimingHook
from vissl_jointssl.plugin.launch import command_line, launch_on_this_node, read_config
from vissl_jointssl.speed.ceiling import Ceiling, image_groups

BY_TURNS, ALONE = "by_turns", "alone"


class CeilingOfTask:
    """The ceiling for what a task's last batch was, made at the first call."""

    def __init__(self) -> None:
        self._ceiling: Ceiling | None = None

    def __call__(self, task: Any) -> None:
        """One pass, in the task's precision."""
        if self._ceiling is None:
            mixed = task.amp_type is not None
            autocast = torch.get_autocast_dtype(task.device.type) if mixed else None
            self._ceiling = Ceiling(image_groups(task.last_batch.sample["input"]), task.device, autocast)
        self._ceiling()


def timed_hooks(out: Path, mode: str, config: Any) -> list[Any]:
    """Those of every run, and the one that takes times behind them all."""
    return [*hook_generator(config), StepTimingHook(out, CeilingOfTask() if mode == BY_TURNS else None)]


def main(arguments: list[str]) -> None:
    """Run; times are written to the first argument, as `StepTimingHook` says."""
    out, mode, *overrides = arguments
    args, config = read_config(overrides)
    launch_on_this_node(config, args.node_id, args.engine_name, hooks=partial(timed_hooks, Path(out), mode))


if __name__ == "__main__":
    command_line(main)
