"""How far a run is, in one small file that whoever started it can watch."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from classy_vision.generic.distributed_util import is_primary
from classy_vision.hooks import ClassyHook

from vissl_jointssl.run_signs import PROGRESS_FILE

SECONDS_BETWEEN_WRITES = 0.5


class ProgressHook(ClassyHook):
    """Writes `{"step", "steps", "loss", "phase"}` of the training phases to `progress.json` in the checkpoint folder.

    Rank 0 only, at most twice a second: a reader that polls it draws a progress bar with time left.
    """

    on_forward = ClassyHook._noop
    on_loss_and_meter = ClassyHook._noop
    on_backward = ClassyHook._noop
    on_update = ClassyHook._noop
    on_phase_end = ClassyHook._noop

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._path = folder / PROGRESS_FILE
        self._written = 0.0

    def on_start(self, task: Any) -> None:
        """Show where a resumed run goes on."""
        self._write(task, "start")

    def on_phase_start(self, task: Any) -> None:
        """Show that an evaluation phase has begun, too."""
        self._write(task, "train" if task.train else "test")

    def on_step(self, task: Any) -> None:
        """Show the step, unless the last one was shown a moment ago."""
        if time.monotonic() - self._written >= SECONDS_BETWEEN_WRITES:
            self._write(task, "train" if task.train else "test")

    def on_end(self, task: Any) -> None:
        """Show the end."""
        self._write(task, "end")

    def _write(self, task: Any, phase: str) -> None:
        if not is_primary():
            return
        self._written = time.monotonic()
        loss = getattr(task.last_batch, "loss", None) if phase == "train" else None  # None before the first step
        loss = None if loss is None else loss.item()
        state = {"step": task.iteration, "steps": task.max_iteration, "loss": loss, "phase": phase}
        beside = self._path.with_suffix(".tmp")
        beside.write_text(json.dumps(state), encoding="utf-8")
        beside.replace(self._path)
