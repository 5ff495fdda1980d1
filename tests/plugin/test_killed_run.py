"""A real stage under VISSL's engine, killed with SIGKILL while it writes checkpoints, resumed by the same command."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from vissl_jointssl.checkpoints import is_finished, newest_checkpoint, read_checkpoint

KILLS = 3
SECONDS = 240
EPOCHS = 8  # more than three runs can end before they are killed


def _start(root: Path, manifest: Path, folder: Path, log: Path) -> subprocess.Popen[bytes]:
    overrides = [
        "config=jointssl/stage1_swav",
        f"config.DATA.TRAIN.DATA_PATHS=['{manifest}']",
        f"config.CHECKPOINT.DIR='{folder}'",
        "config.CHECKPOINT.CHECKPOINT_FREQUENCY=1",
        f"config.OPTIMIZER.num_epochs={EPOCHS}",
        "config.DATA.NUM_DATALOADER_WORKERS=0",
        "config.DATA.TRAIN.BATCHSIZE_PER_REPLICA=16",
        "config.DATA.TRAIN.TRANSFORMS.0.size_crops=[32,16]",
        "config.MODEL.TEMP_FROZEN_PARAMS_ITER_MAP=[[module.heads.0.prototypes0.weight,1]]",
        "config.MACHINE.DEVICE=cpu",
        "config.DISTRIBUTED.BACKEND=gloo",
        "config.DISTRIBUTED.NUM_PROC_PER_NODE=1",
    ]
    with log.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, str(root / "tools" / "run_distributed_engines.py"), *overrides],
            cwd=folder.parent,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _wait(run: subprocess.Popen[bytes], log: Path, happened: Callable[[], object]) -> None:
    deadline = time.monotonic() + SECONDS
    while not happened():
        assert run.poll() is None, log.read_text()[-3000:]
        assert time.monotonic() < deadline, f"nothing for {SECONDS} s: {log.read_text()[-3000:]}"
        time.sleep(0.002)


@pytest.mark.slow
def test_a_stage_killed_while_it_saves_resumes_and_finishes(root: Path, tiny_manifest: Path, tmp_path: Path) -> None:
    folder, log = tmp_path / "stage1", tmp_path / "log.txt"
    draw = random.Random(0)
    reached: Path | None = None
    for kill in range(KILLS + 1):
        before = set(folder.glob("model_*.torch"))
        run = _start(root, tiny_manifest, folder, log)
        if kill < KILLS:
            parts = set(folder.glob(".part-*"))
            _wait(run, log, lambda: set(folder.glob("model_*.torch")) - before)  # noqa: B023 - called at once
            _wait(run, log, lambda: set(folder.glob(".part-*")) - parts)  # noqa: B023
            time.sleep(draw.uniform(0, 0.3))
            os.killpg(run.pid, signal.SIGKILL)
        assert run.wait(SECONDS) == (-signal.SIGKILL if kill < KILLS else 0), log.read_text()[-3000:]
        resumed = re.findall(r"Resume from file: (.*)$", log.read_text(), re.MULTILINE)
        assert resumed == ([] if reached is None else [str(reached)])
        now = newest_checkpoint(folder)
        assert now is not None
        assert reached is None or _epoch(now) > _epoch(reached)
        reached = now
    assert is_finished(folder)
    assert _epoch(reached) == EPOCHS - 1
    assert len(list(folder.glob("model_*.torch"))) == EPOCHS  # none was deleted
    assert not list(folder.glob("*.damaged"))

    # Its real final checkpoint, cut at every tenth from the end.
    final, size = reached, reached.stat().st_size
    for tenth in reversed(range(10)):
        os.truncate(final, size * tenth // 10)
        assert newest_checkpoint(folder) == folder / f"model_phase{EPOCHS - 2}.torch"
        assert not is_finished(folder)
    # 200 MB each, and pytest keeps the folders of three sessions
    for path in [*folder.glob("model_*"), *folder.glob(".part-*")]:
        path.unlink()


def _epoch(path: Path | None) -> int:
    assert path is not None
    epoch = read_checkpoint(path).train_phase
    assert epoch is not None
    return epoch
