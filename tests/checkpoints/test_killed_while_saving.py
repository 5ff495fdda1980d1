"""kill -9 at random moments of a run that does little but save: it always resumes, and nothing it saved is lost.

Forked, not started anew, so that 200 kills take seconds: what is killed is the real writer and the real finder.
"""

from __future__ import annotations

import mmap
import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from vissl_jointssl.checkpoints import checkpoint_to_resume, damage, point_link, save_checkpoint

KEPT = 3  # the test removes older ones; a run never does
LONGEST = 0.06  # seconds from the first save to the kill; a save takes a few milliseconds


def _name(step: int, reuse_names: bool) -> str:
    # One name in use throughout is what CHECKPOINT.OVERWRITE_EXISTING does to the final checkpoint.
    return f"model_iteration{0 if reuse_names else step}.torch"


def _state(step: int) -> dict[str, object]:
    """A toy model and its momentum after some steps: every number in it is the step."""
    model = nn.Linear(300, 200)
    for parameter in model.parameters():
        nn.init.constant_(parameter, step)
    momentum = {name: torch.full_like(value, step) for name, value in model.state_dict().items()}
    return {"iteration": step, "model": model.state_dict(), "momentum": momentum, "type": "consolidated"}


def _restored(path: Path) -> int:
    """The step of a checkpoint, every number of which must agree."""
    content = torch.load(path, weights_only=True)
    step = content["iteration"]
    for part in ("model", "momentum"):
        assert all(bool((value == step).all()) for value in content[part].values()), f"{path}: two steps mixed"
    return step


def _train(folder: Path, saved: mmap.mmap, reuse_names: bool) -> None:
    """Resume and save after every step, until killed; note each step once its checkpoint is saved."""
    newest = checkpoint_to_resume(folder)
    step = _restored(newest) if newest else 0
    while True:
        step += 1
        name = _name(step, reuse_names)
        save_checkpoint(_state(step), folder / name)
        saved[:8] = step.to_bytes(8, "little")
        point_link(folder, name)


def _kill_and_resume(folder: Path, kills: int, reuse_names: bool) -> int:
    """Kill a run again and again; the number of kills that came while a file was being written."""
    draw = random.Random(0)
    saved = mmap.mmap(-1, 8)  # shared with the forked run
    fork = multiprocessing.get_context("fork")
    torch.set_num_threads(1)  # a forked child cannot use the threads of its parent
    in_the_midst = 0
    for kill in range(kills):
        before = int.from_bytes(saved[:8], "little")
        run = fork.Process(target=_train, args=(folder, saved, reuse_names), daemon=True)
        run.start()
        deadline = time.monotonic() + 60
        while int.from_bytes(saved[:8], "little") == before and kill % 4:  # every fourth may die at once
            assert run.is_alive(), f"the run after kill {kill} did not resume (exit code {run.exitcode})"
            assert time.monotonic() < deadline, "no checkpoint within 60 s"
            time.sleep(0.001)
        time.sleep(draw.uniform(0, LONGEST))
        assert run.pid is not None
        os.kill(run.pid, signal.SIGKILL)
        run.join()
        assert run.exitcode == -signal.SIGKILL, f"kill {kill}: the run had ended by itself ({run.exitcode})"

        parts = list(folder.glob(".part-*.part"))
        in_the_midst += bool(parts)
        for part in parts:  # ten minutes pass
            os.utime(part, (0, 0), follow_symlinks=False)
        done = int.from_bytes(saved[:8], "little")
        link = folder / "checkpoint.torch"
        if done > 1:
            assert damage(link.resolve()) is None, f"kill {kill}: the link leads to no whole checkpoint"
        newest = checkpoint_to_resume(folder)
        step = _restored(newest) if newest else 0
        # Killed after the file had its name and before the run noted it, a step may be there and not be noted.
        assert step in (done, done + 1), f"kill {kill}: saved up to step {done}, resumed at {step}"
        saved[:8] = step.to_bytes(8, "little")
        assert not link.is_symlink() or link.resolve() == newest
        assert not list(folder.glob("*.damaged*")), f"kill {kill}: a whole checkpoint was called damaged"
        assert not list(folder.glob(".part-*.part"))
        for path in sorted(folder.glob("model_*.torch"), key=lambda path: path.stat().st_mtime_ns)[:-KEPT]:
            path.unlink()
            path.with_name(f"{path.name}.sha256").unlink(missing_ok=True)
    return in_the_midst


def _assert_survives(folder: Path, kills: int, reuse_names: bool) -> None:
    in_the_midst = _kill_and_resume(folder, kills, reuse_names)
    assert in_the_midst > kills // 4, f"only {in_the_midst} of {kills} kills came while a file was being written"


@pytest.mark.parametrize("reuse_names", [False, True])
def test_a_run_killed_20_times_while_saving_resumes_every_time(tmp_path: Path, reuse_names: bool) -> None:
    _assert_survives(tmp_path, 20, reuse_names)


@pytest.mark.slow
@pytest.mark.parametrize("reuse_names", [False, True])
def test_a_run_killed_200_times_while_saving_resumes_every_time(tmp_path: Path, reuse_names: bool) -> None:
    _assert_survives(tmp_path, 200, reuse_names)
