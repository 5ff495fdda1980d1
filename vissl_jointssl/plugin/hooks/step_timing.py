"""How long each training step takes inside the engine, and what it is compared with, by turns."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from classy_vision.generic.distributed_util import is_primary
from classy_vision.hooks import ClassyHook

from vissl_jointssl.plugin.step_clock import WatchedIterator, device_time
from vissl_jointssl.process_memory import peak_bytes

PARTS = ("forward", "loss", "backward", "optimizer", "rest")


class StepTimingHook(ClassyHook):
    """Times whole steps: data, forward, loss, backward, optimizer and every hook that stands before this one.

    Must be the last hook. On a GPU it waits for the device after each step, which training itself does not.

    Args:
        out: Written at the end: a JSON object with `steps` and `waits`, lists of seconds of equal length (`waits` is
            the part of a step that it waited for data), `others` and `parts`, such lists by name, `began`, the time
            of day in seconds at which the first step began, and `peak`, the most memory in bytes that this process, or
            what it keeps on its GPU, has had.
        others: By name, called with the task after each training step and timed apart. None at all leaves steps
            undisturbed and takes their parts instead, waiting for a GPU after each; what other hooks do counts where
            they do it.
    """

    on_start = ClassyHook._noop
    on_phase_end = ClassyHook._noop

    def __init__(self, out: Path, others: Mapping[str, Callable[[Any], None]] = MappingProxyType({})) -> None:
        super().__init__()
        self._out = out
        self._others = others
        self._seconds: dict[str, list[float]] = {"steps": [], "waits": []}
        self._seconds_of_others: dict[str, list[float]] = {name: [] for name in others}
        self._parts: dict[str, list[float]] = {name: [] for name in PARTS}
        self._began: float | None = None
        self._waited = 0.0
        self._begin = self._part_begin = 0.0

    def on_phase_start(self, task: Any) -> None:
        """The first step begins now; starting the loader's workers is no part of it."""
        if self._began is None:
            self._began = time.time()
        task.data_iterator = WatchedIterator(task.data_iterator, self._add_wait)  # VISSL's steps read nothing else
        self._begin = self._part_begin = device_time(task.device)

    def on_forward(self, task: Any) -> None:
        """The forward pass ends here."""
        self._note("forward", task)

    def on_loss_and_meter(self, task: Any) -> None:
        """The loss is known."""
        self._note("loss", task)

    def on_backward(self, task: Any) -> None:
        """The backward pass ends here."""
        self._note("backward", task)

    def on_update(self, task: Any) -> None:
        """The weights have moved."""
        self._note("optimizer", task)

    def on_step(self, task: Any) -> None:
        """Note the step that ends here, then let the others take their turns."""
        self._note("rest", task)
        if task.train:
            end = device_time(task.device)
            self._seconds["steps"].append(end - self._begin)
            self._seconds["waits"].append(self._waited)
            for name, other in self._others.items():
                begin = device_time(task.device)
                other(task)
                self._seconds_of_others[name].append(device_time(task.device) - begin)
        self._waited = 0.0
        self._begin = self._part_begin = device_time(task.device)

    def on_end(self, task: Any) -> None:
        """Write what was noted."""
        if is_primary():
            by_name = {"others": self._seconds_of_others, "parts": self._parts}
            cuda = task.device.type == "cuda"
            peak = torch.cuda.max_memory_allocated(task.device) if cuda else peak_bytes()
            found = {**self._seconds, **by_name, "began": self._began, "peak": peak}
            self._out.write_text(json.dumps(found), encoding="utf-8")

    def _note(self, part: str, task: Any) -> None:
        if task.train and not self._others:
            now = device_time(task.device)
            waited = self._waited if part == "forward" else 0.0
            self._parts[part].append(now - self._part_begin - waited)
            self._part_begin = now

    def _add_wait(self, batch: Any, seconds: float) -> None:
        self._waited += seconds
