"""How far a run is, in one small file that whoever started it can watch."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from classy_vision.generic.distributed_util import is_primary
from classy_vision.hooks import ClassyHook

from vissl_jointssl.run_signs import PROGRESS_FILE

SECONDS_BETWEEN_WRITES = 0.5


class ProgressHook(ClassyHook):
    """Writes how far the training phases are to `progress.json` in the checkpoint folder, see `run_signs`.

    Rank 0 only, at most twice a second: a reader that polls it draws a progress bar with time left. Other hooks add
    what a person should see: numbers beside the loss, and warnings.
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
        self._beside: dict[str, float] = {}
        self._warnings: list[str] = []

    def show_beside_loss(self, numbers: Mapping[str, float]) -> None:
        """Numbers to show beside the loss from now on, by name."""
        self._beside |= numbers

    def warn(self, text: str) -> None:
        """A sentence to show once; it stays in the file to the end of the run."""
        self._warnings.append(text)

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
        state |= {"beside_loss": self._beside, "warnings": self._warnings}
        beside = self._path.with_suffix(".tmp")
        beside.write_text(json.dumps(state), encoding="utf-8")
        beside.replace(self._path)
