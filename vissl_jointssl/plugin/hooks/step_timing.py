"""How long each training step takes inside the engine, and something to compare with, by turns."""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from classy_vision.generic.distributed_util import is_primary
from classy_vision.hooks import ClassyHook

from vissl_jointssl.plugin.step_clock import WatchedIterator, device_time


class StepTimingHook(ClassyHook):
    """Times whole steps: data, forward, loss, backward, optimizer and every hook that stands before this one.

    Must be the last hook. On a GPU it waits for the device after each step, which training itself does not.

    Args:
        out: Written at the end: a JSON object with `steps`, `between` and `waits`, lists of seconds of equal length
            (`waits` is the part of a step that it waited for data), and `peak`, the most memory in bytes that this
            process, or what it keeps on its GPU, has had.
        between: Called with the task after each training step and timed apart; None leaves steps undisturbed.
    """

    on_start = ClassyHook._noop
    on_forward = ClassyHook._noop
    on_loss_and_meter = ClassyHook._noop
    on_backward = ClassyHook._noop
    on_update = ClassyHook._noop
    on_phase_end = ClassyHook._noop

    def __init__(self, out: Path, between: Callable[[Any], None] | None = None) -> None:
        super().__init__()
        self._out = out
        self._between = between
        self._seconds: dict[str, list[float]] = {"steps": [], "between": [], "waits": []}
        self._waited = 0.0
        self._begin = 0.0

    def on_phase_start(self, task: Any) -> None:
        """The first step begins now; starting the loader's workers is no part of it."""
        task.data_iterator = WatchedIterator(task.data_iterator, self._add_wait)  # VISSL's steps read nothing else
        self._begin = device_time(task.device)

    def on_step(self, task: Any) -> None:
        """Note the step that ends here, then let the other take its turn."""
        if task.train:
            end = device_time(task.device)
            self._seconds["steps"].append(end - self._begin)
            self._seconds["waits"].append(self._waited)
            if self._between is not None:
                self._between(task)
            self._seconds["between"].append(device_time(task.device) - end)
        self._waited = 0.0
        self._begin = device_time(task.device)

    def on_end(self, task: Any) -> None:
        """Write what was noted."""
        if is_primary():
            self._out.write_text(json.dumps({**self._seconds, "peak": _peak_memory(task.device)}), encoding="utf-8")

    def _add_wait(self, batch: Any, seconds: float) -> None:
        self._waited += seconds


def _peak_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024  # bytes there, kilobytes elsewhere
