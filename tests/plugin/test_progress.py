"""The file that a progress bar reads."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import torch

from vissl_jointssl.plugin.hooks.progress import ProgressHook
from vissl_jointssl.run_signs import PROGRESS_FILE


def _task(step: int, loss: float | None) -> SimpleNamespace:
    batch = SimpleNamespace() if loss is None else SimpleNamespace(loss=torch.tensor(loss))
    return SimpleNamespace(iteration=step, max_iteration=10, train=True, last_batch=batch)


def test_it_says_how_far_the_run_is(tmp_path: Path) -> None:
    hook = ProgressHook(tmp_path)
    hook.on_start(_task(4, None))
    path = tmp_path / PROGRESS_FILE
    quiet = {"beside_loss": {}, "warnings": []}
    assert json.loads(path.read_text()) == {"step": 4, "steps": 10, "loss": None, "phase": "start", **quiet}
    hook.on_phase_start(_task(5, 1.5))
    assert json.loads(path.read_text()) == {"step": 5, "steps": 10, "loss": 1.5, "phase": "train", **quiet}


def test_other_hooks_add_numbers_and_warnings(tmp_path: Path) -> None:
    hook = ProgressHook(tmp_path)
    hook.show_beside_loss({"neighbours": 0.5, "mean_embedding": 1.0})
    hook.show_beside_loss({"neighbours": 0.25})
    hook.warn("all volumes look alike")
    hook.warn("few prototypes are in use")
    hook.on_end(_task(5, 1.0))
    state = json.loads((tmp_path / PROGRESS_FILE).read_text())
    assert state["beside_loss"] == {"neighbours": 0.25, "mean_embedding": 1.0}
    assert state["warnings"] == ["all volumes look alike", "few prototypes are in use"]


def test_it_writes_at_most_twice_a_second(tmp_path: Path) -> None:
    hook = ProgressHook(tmp_path)
    hook.on_start(_task(0, None))
    for step in range(1, 5):
        hook.on_step(_task(step, 1.0))
    assert json.loads((tmp_path / PROGRESS_FILE).read_text())["step"] == 0
    hook.on_end(_task(5, 1.0))
    assert json.loads((tmp_path / PROGRESS_FILE).read_text())["step"] == 5
