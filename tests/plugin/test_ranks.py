"""Ranks that fail, are killed or are asked to stop: the others end too, and the launcher says what happened."""

from __future__ import annotations

import functools
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from vissl_jointssl.plugin.compat import ranks
from vissl_jointssl.plugin.failure import cause_of
from vissl_jointssl.plugin.stop_signals import Board, Stopped, asked_to_stop

from vissl.utils import distributed_launcher  # isort: skip - after the plugin has made it importable

SECONDS = 20
CPU = SimpleNamespace(MACHINE=SimpleNamespace(DEVICE="cpu"))
Rank = Callable[..., None]


@pytest.fixture
def launch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[Rank], list[int]]:
    """Launch two ranks of a toy engine as the launcher does its own, but forked, which takes no time.

    Returns the processes' ids; each rank gets its number and the folder.
    """
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)  # a forked child cannot use the threads of its parent

    def spawn(function: Callable[..., None], count: int, arguments: tuple[Any, ...]) -> Any:
        context = torch.multiprocessing.start_processes(function, arguments, count, join=False, start_method="fork")
        processes.extend(context.pids())
        return context

    def run(rank: Rank) -> list[int]:
        monkeypatch.setattr(distributed_launcher, "_distributed_worker", functools.partial(_begin, rank, tmp_path))
        ranks.spawn_ranks(2, (CPU,), Board(), None)
        return processes

    processes: list[int] = []
    monkeypatch.setattr(ranks, "_spawn", spawn)
    return run


def _begin(rank: Rank, folder: Path, number: int, config: Any) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", world_size=2, rank=number)
    rank(number, folder)


def _gone(processes: list[int]) -> bool:
    return not any(Path(f"/proc/{process}").exists() for process in processes)


def _train(number: int) -> None:
    """Steps for ever, as ranks take them: together."""
    for _ in range(100 * SECONDS):
        torch.distributed.all_reduce(torch.ones(1))
        time.sleep(0.01)


def _rank_1_is_killed(number: int, folder: Path) -> None:
    if number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    _train(number)


def test_a_killed_rank_is_named_and_the_others_end(launch: Callable[[Rank], list[int]]) -> None:
    start = time.monotonic()
    with pytest.raises(
        ranks.RankLostError,
        match=r"^rank 1 of this node was ended by SIGKILL; that is how the kernel .* \(memory: .*iB free.*resumes$",
    ) as error:
        launch(_rank_1_is_killed)
    assert time.monotonic() - start < SECONDS
    assert "rank 1 of this node was ended by SIGKILL" in cause_of(error.value)


def _rank_1_fails_and_rank_0_hangs(number: int, folder: Path) -> None:
    (folder / str(number)).write_text(str(os.getpid()))
    if number == 1:
        raise ValueError("volume7 is broken")
    signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.Signals))
    time.sleep(100 * SECONDS)


def test_a_rank_that_hangs_ends_when_another_fails(launch: Callable[[Rank], list[int]], tmp_path: Path) -> None:
    start = time.monotonic()
    with pytest.raises(torch.multiprocessing.ProcessRaisedException, match="volume7 is broken"):
        launch(_rank_1_fails_and_rank_0_hangs)
    assert time.monotonic() - start < SECONDS
    assert _gone([int((tmp_path / str(number)).read_text()) for number in range(2)])


def _rank_1_is_asked(number: int, folder: Path) -> None:
    if number == 1:
        os.kill(os.getpid(), signal.SIGUSR1)
    while True:
        asked = torch.tensor(asked_to_stop())
        torch.distributed.all_reduce(asked, torch.distributed.ReduceOp.MAX)
        if asked:
            raise Stopped(int(asked), "step 3")
        time.sleep(0.01)


def test_a_run_that_was_asked_to_stop_is_no_failure_and_leaves_no_process(
    launch: Callable[[Rank], list[int]],
) -> None:
    with pytest.raises(Stopped) as stopped:
        launch(_rank_1_is_asked)
    assert (stopped.value.number, stopped.value.code, stopped.value.said) == (signal.SIGUSR1, 75, "step 3")


def _write_pid_and_train(number: int, folder: Path) -> None:
    (folder / f"rank{number}").write_text(str(os.getpid()))
    _train(number)


@pytest.mark.parametrize("signals", [[signal.SIGKILL], [signal.SIGTERM, signal.SIGTERM]], ids=["killed", "asked twice"])
def test_no_rank_outlives_its_launcher(launch: Callable[[Rank], list[int]], tmp_path: Path, signals: list[int]) -> None:
    launcher = os.fork()
    if launcher == 0:
        launch(_write_pid_and_train)
        os._exit(0)
    files = [tmp_path / f"rank{number}" for number in range(2)]
    deadline = time.monotonic() + SECONDS
    while not all(file.exists() and file.read_text() for file in files):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    processes = [int(file.read_text()) for file in files]
    for number in signals:
        os.kill(launcher, number)
        time.sleep(0.2)  # two at once are one
    _, status = os.waitpid(launcher, 0)
    assert os.waitstatus_to_exitcode(status) == (-signal.SIGKILL if len(signals) == 1 else 128 + signal.SIGTERM)
    while not _gone(processes):
        assert time.monotonic() < deadline
        time.sleep(0.05)
