"""The share of time that training waits for data."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from vissl_jointssl.plugin.hooks import data_wait
from vissl_jointssl.plugin.hooks.data_wait import DATA_WAIT_FILE, FIRST_STEPS, STEPS, DataWaitHook
from vissl_jointssl.plugin.hooks.measure_log import MeasureLog
from vissl_jointssl.plugin.hooks.progress import ProgressHook

# isort: split
from vissl.config import AttrDict
from vissl.utils.perf_stats import PerfTimer


class _Run:
    """A run in which time passes as it is told."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(data_wait.time, "perf_counter", self._clock)
        monkeypatch.setattr("vissl.utils.perf_stats.perf_counter", self._clock)
        config = AttrDict(
            {
                "CHECKPOINT": {"DIR": str(folder)},
                "DISTRIBUTED": {"NUM_NODES": 1},
                "HOOKS": {"TENSORBOARD_SETUP": {"USE_TENSORBOARD": False}},
                "DATA": {"NUM_DATALOADER_WORKERS": 3},
                "JOINT_SSL": {},
                "LOG_FREQUENCY": 1,
            }
        )
        self.folder = folder
        self.progress = ProgressHook(folder)
        self.hook = DataWaitHook(MeasureLog(config, DATA_WAIT_FILE, "Data"), self.progress)
        self.task = SimpleNamespace(perf_stats=None, train=True, iteration=0, config=config, device=torch.device("cpu"))

    def _clock(self) -> float:
        return self.now

    def step(self, waited: float, worked: float) -> None:
        with PerfTimer("read_sample", self.task.perf_stats):
            self.now += waited
        self.now += worked
        self.task.iteration += self.task.train
        self.hook.on_step(self.task)

    def epoch(self, *steps: tuple[float, float]) -> None:
        self.hook.on_phase_start(self.task)
        for waited, worked in steps:
            self.step(waited, worked)

    def shares(self) -> list[float]:
        lines = (self.folder / DATA_WAIT_FILE).read_text().splitlines()
        return [json.loads(line)["data_wait_share"] for line in lines]


@pytest.fixture
def run_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], _Run]:
    return lambda: _Run(tmp_path, monkeypatch)


SLOW_START = [(100.0, 1.0)] * FIRST_STEPS


def test_the_share_is_waiting_over_all_time_without_the_first_steps_of_an_epoch(run_of: Callable[[], _Run]) -> None:
    run = run_of()
    run.epoch(*SLOW_START, (1.0, 9.0), (0.0, 10.0))
    run.now += 1000.0  # a checkpoint, between epochs
    run.epoch(*SLOW_START, (3.0, 7.0))
    shares = run.shares()
    assert shares == pytest.approx([0.1, 0.05, 4 / 30])


def test_what_hooks_behind_the_step_take_counts_as_time(run_of: Callable[[], _Run]) -> None:
    run = run_of()
    run.epoch(*SLOW_START)
    run.now += 8.0  # another hook's on_step
    run.step(1.0, 1.0)
    assert run.shares() == pytest.approx([0.1])


def test_only_the_last_steps_count_and_the_share_stands_beside_the_loss(run_of: Callable[[], _Run]) -> None:
    run = run_of()
    run.epoch(*SLOW_START, *[(1.0, 1.0)] * 10, *[(0.0, 1.0)] * STEPS)
    assert run.shares()[-1] == 0
    run.step(1.0, 0.0)
    assert run.progress._beside["data_wait"] == pytest.approx(1 / STEPS)


def test_evaluation_does_not_count(run_of: Callable[[], _Run]) -> None:
    run = run_of()
    run.epoch(*SLOW_START, (0.5, 0.5))
    run.task.train = False
    run.epoch(*[(5.0, 0.0)] * 10)
    assert run.shares() == pytest.approx([0.5])


@pytest.mark.parametrize(("waited", "warned"), [(0.04, False), (0.06, True)])
def test_a_share_that_stays_above_the_limit_is_said_once(
    run_of: Callable[[], _Run], waited: float, warned: bool
) -> None:
    run = run_of()
    run.epoch(*SLOW_START, *[(waited, 1 - waited)] * (STEPS - 1))
    assert run.progress._warnings == []
    for _ in range(STEPS):
        run.step(waited, 1 - waited)
    assert len(run.progress._warnings) == int(warned)
    if warned:
        assert (
            "waits for data 6% of its time; raise config.DATA.NUM_DATALOADER_WORKERS, now 3,"
            in (run.progress._warnings[0])
        )


def test_times_that_somebody_already_keeps_are_not_replaced(run_of: Callable[[], _Run]) -> None:
    run = run_of()
    kept: Any = object()
    run.task.perf_stats = kept
    run.hook.on_phase_start(run.task)
    assert run.task.perf_stats is kept
