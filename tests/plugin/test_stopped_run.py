"""A real stage of two ranks with loader workers: asked to stop, asked twice, robbed of a rank and of a worker."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from vissl_jointssl.checkpoints import is_finished
from vissl_jointssl.run_signs import PROGRESS_FILE
from vissl_jointssl.training.engine import LOG_FILE

SECONDS = 240
SECONDS_TO_END = 60  # on a busy machine; a step takes one or two
OVERRIDES = [
    "config.CHECKPOINT.CHECKPOINT_FREQUENCY=100",
    "config.OPTIMIZER.num_epochs=8",
    "config.DATA.NUM_DATALOADER_WORKERS=1",
    "config.DATA.TRAIN.BATCHSIZE_PER_REPLICA=8",
    "config.DATA.TRAIN.TRANSFORMS.0.size_crops=[32,16]",
    "config.MODEL.TEMP_FROZEN_PARAMS_ITER_MAP=[[module.heads.0.prototypes0.weight,1]]",
]


@pytest.fixture
def recipe(tiny_manifest: Path, tmp_path: Path) -> Path:
    """One stage of 8 epochs with 3 steps each."""
    content = {
        "run": str(tmp_path / "run"),
        "manifest": str(tiny_manifest),
        "device": "cpu",
        "processes": 2,
        "stages": [{"config": "jointssl/stage1_swav", "overrides": OVERRIDES}],
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


class _Run:
    """One start of the same command."""

    def __init__(self, recipe: Path) -> None:
        self.folder = recipe.parent / "run" / "stage1"
        self._log = recipe.parent / "log.txt"
        for path in (self.folder / PROGRESS_FILE, self.folder / LOG_FILE):
            path.unlink(missing_ok=True)
        with self._log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "vissl_jointssl.cli", "train", str(recipe)],
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait_for(self, true: Callable[[], object], seconds: float = SECONDS) -> None:
        deadline = time.monotonic() + seconds
        while not true():
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.02)

    def steps(self) -> int:
        """How many have been taken, as far as the file says; -1 before training."""
        progress = self.folder / PROGRESS_FILE
        state = json.loads(progress.read_text()) if progress.exists() else {"phase": "start"}
        return state["step"] if state["phase"] == "train" else -1

    def said(self) -> str:
        return self._log.read_text(errors="replace")

    def engine_said(self) -> str:
        return (self.folder / LOG_FILE).read_text(errors="replace")

    def ranks(self) -> list[int]:
        launchers = [child for child in _children(self.process.pid) if "plugin.launch" in _command(child)]
        return [rank for one in launchers for rank in _children(one) if "spawn_main" in _command(rank)]

    def workers(self) -> list[int]:
        servers = [child for rank in self.ranks() for child in _children(rank) if "forkserver" in _command(child)]
        return [worker for server in servers for worker in _children(server)]

    def two_workers_after(self, steps: int) -> list[int]:
        """Of one look: an epoch ends after three steps, and its workers with it."""
        found: list[int] = []

        def are_there() -> bool:
            found[:] = self.workers()
            return self.steps() >= steps and len(found) == 2

        self.wait_for(are_there)
        return found

    def ends(self) -> int:
        """Wait for its end; nothing of its session may be left after it."""
        code = self.process.wait(SECONDS_TO_END)
        deadline = time.monotonic() + 10
        while left := [one for one in _processes() if _stat(one)[3:4] == [str(self.process.pid)]]:
            assert time.monotonic() < deadline, [_command(one) for one in left]
            time.sleep(0.05)
        return code

    def resumed_from(self) -> list[str]:
        return re.findall(r"Resume from file: .*/(.*)$", self.engine_said(), re.MULTILINE)

    def stopped_after(self) -> tuple[str, int, str]:
        """Signal, steps and checkpoint of the last words."""
        after = r"jointssl train: stage 1 of 1: (\w+) has stopped the run after (\d+) of 24 steps; .* from (\S+) in"
        found = re.search(after, self.said())
        assert found, self.said()
        assert (self.folder / found[3]).exists()
        return found[1], int(found[2]), found[3]


def _processes() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def _stat(process: int) -> list[str]:
    """State, parent, group, session; empty for a process that has gone, or has only to be reaped."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [] if fields[0] == "Z" else fields


def _children(parent: int) -> list[int]:
    return [one for one in _processes() if _stat(one)[1:2] == [str(parent)]]


def _command(process: int) -> str:
    try:
        return Path(f"/proc/{process}/cmdline").read_text().replace("\0", " ")
    except (FileNotFoundError, ProcessLookupError):
        return ""


@pytest.mark.slow
def test_a_run_survives_requests_second_requests_and_the_loss_of_processes(recipe: Path) -> None:
    # Ctrl-C in a terminal reaches every process: this one's child, its ranks, their fork servers and loader workers.
    run = _Run(recipe)
    run.wait_for(lambda: run.steps() >= 1)
    before = run.steps()
    os.killpg(run.process.pid, signal.SIGINT)
    assert run.ends() == 130, run.said()
    name, steps, checkpoint = run.stopped_after()
    assert name == "SIGINT"
    assert before <= steps <= before + 3  # the file is half a second late
    assert "a second signal ends it at once" in run.said()

    # The same command goes on from there; a rank is killed, as by the kernel.
    run = _Run(recipe)
    run.wait_for(lambda: run.steps() >= steps)
    assert run.resumed_from() == [checkpoint]
    ranks = run.ranks()
    assert len(ranks) == 2
    os.kill(ranks[1], signal.SIGKILL)
    assert run.ends() == 1, run.said()
    assert re.search(r"rank [01] of this node was ended by SIGKILL; .* memory runs out", run.said()), run.said()

    # A loader worker is killed.
    run = _Run(recipe)
    os.kill(run.two_workers_after(steps)[0], signal.SIGKILL)
    assert run.ends() == 1, run.said()
    named = (
        r"loader worker 0 \(process \d+\), at work on volume\d \(volume\d\.npy, slice \d\), .* was killed \(SIGKILL\)"
    )
    assert re.search(named, run.said()), run.said()

    # Somebody is impatient.
    run = _Run(recipe)
    run.wait_for(lambda: run.steps() >= steps)
    os.kill(run.process.pid, signal.SIGUSR1)
    time.sleep(0.05)
    os.kill(run.process.pid, signal.SIGUSR1)
    assert run.ends() == 128 + signal.SIGUSR1, run.said()

    # A scheduler tells one process only, and starts the command again.
    run = _Run(recipe)
    run.wait_for(lambda: run.steps() >= steps + 1)
    os.kill(run.process.pid, signal.SIGTERM)
    assert run.ends() == 75, run.said()
    name, more_steps, checkpoint = run.stopped_after()
    assert name == "SIGTERM"
    assert more_steps > steps

    run = _Run(recipe)
    assert run.process.wait(SECONDS) == 0, run.said()
    assert run.resumed_from() == [checkpoint]
    assert is_finished(run.folder)
    for path in run.folder.glob("model_*"):  # 200 MB each, and pytest keeps the folders of three sessions
        path.unlink()
