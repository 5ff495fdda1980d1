"""A training step that ends early, as if it had not been: VISSL's steps know no such thing."""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

TrainStep = Callable[[Any], Any]


class StepSkipped(Exception):
    """Raised by a hook within a step to end it; on all ranks or on none, and with the step's changes undone."""


def skippable(step: TrainStep) -> TrainStep:
    """A training step that hooks can prepare for and end: they may have `before_step(task)`, and raise `StepSkipped`.

    A skipped step counts: training goes on with the next batch, and the schedules stay where they would be without it.
    """

    @functools.wraps(step)
    def step_or_skip(task: Any) -> Any:
        for hook in task.hooks:
            if hasattr(hook, "before_step"):
                hook.before_step(task)
        losses = len(task.losses)
        try:
            return step(task)
        except StepSkipped:
            del task.losses[losses:]
            task.last_batch = SimpleNamespace()  # nobody reads a loss or an output that is not finite
            task.num_updates += task.get_global_batchsize()
            return task

    return step_or_skip
