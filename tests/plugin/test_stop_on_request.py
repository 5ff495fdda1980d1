"""A run that is asked to stop: all ranks after the same step, with a checkpoint due, wherever in the run that is."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import distributed, nn

from vissl_jointssl.plugin.hooks.finite_numbers import FiniteNumbersHook
from vissl_jointssl.plugin.hooks.progress import ProgressHook
from vissl_jointssl.plugin.hooks.stop_on_request import StopOnRequestHook
from vissl_jointssl.plugin.number_limits import NumberOptions
from vissl_jointssl.plugin.stop_signals import Board, Stopped, asked_to_stop, listening

EPOCHS, STEPS = 3, 4


@pytest.fixture
def board() -> Iterator[Board]:
    """This process listens."""
    board = Board()
    with listening(board, speaks=False):
        yield board


def _task(test: bool = False) -> SimpleNamespace:
    """As much of VISSL's task as the hook looks at."""
    phases = [{"train": True}, {"train": False}] if test else [{"train": True}]
    return SimpleNamespace(
        config={"CHECKPOINT": {"CHECKPOINT_ITER_FREQUENCY": -1, "CHECKPOINT_FREQUENCY": 10}},
        dataloaders={"train": range(STEPS), "test": range(2)},
        phases=phases * EPOCHS,
        num_train_phases=EPOCHS,
        max_iteration=EPOCHS * STEPS,
        iteration=0,
        train_phase_idx=-1,
        train=True,
        device=torch.device("cpu"),
        checkpoint_folder="run",
    )


def _train(hook: StopOnRequestHook, task: SimpleNamespace, at: dict[tuple[int, bool], Any], due: list[str]) -> None:
    """Call a hook as VISSL's trainer does (vissl/trainer/trainer_main.py:192); notes the checkpoints that are due.

    `at`: what happens within the step after so many steps, of training or not.
    """
    for phase in task.phases:
        task.train = phase["train"]
        task.train_phase_idx += task.train
        hook.on_phase_start(task)
        for _ in task.dataloaders["train" if task.train else "test"]:
            hook.before_step(task)
            at.get((task.iteration, task.train), lambda: None)()
            task.iteration += task.train
            hook.on_step(task)
            frequency = task.config["CHECKPOINT"]["CHECKPOINT_ITER_FREQUENCY"]
            if task.train and frequency > 0 and task.iteration % frequency == 0:
                due.append(f"model_iteration{task.iteration}.torch")
        hook.before_step(task)  # of the step that finds no batch
        hook.on_phase_end(task)
        if task.train and task.train_phase_idx % task.config["CHECKPOINT"]["CHECKPOINT_FREQUENCY"] == 0:
            due.append(f"model_phase{task.train_phase_idx}.torch")


def _ask(number: int = signal.SIGTERM) -> None:
    os.kill(os.getpid(), number)
    while not asked_to_stop():
        time.sleep(0.001)


@pytest.mark.parametrize(
    ("asked", "steps", "checkpoint"),
    [(1, 2, "model_iteration2.torch"), (4, 5, "model_iteration5.torch"), (7, 8, "model_phase1.torch")],
    ids=["within an epoch", "in an epoch's first step", "in an epoch's last step"],
)
def test_a_run_ends_after_the_step_with_a_checkpoint(board: Board, asked: int, steps: int, checkpoint: str) -> None:
    task, due = _task(), []
    with pytest.raises(Stopped) as stopped:
        _train(StopOnRequestHook(), task, {(asked, True): _ask}, due)
    assert task.iteration == steps
    assert due == [*(["model_phase0.torch"] if steps > STEPS else []), checkpoint]
    assert stopped.value.code == 75
    assert stopped.value.said == (
        f"SIGTERM has stopped the run after {steps} of 12 steps; the same command goes on from {checkpoint} in run"
    )


def test_a_run_that_nobody_asks_or_that_has_taken_its_last_step_comes_to_its_end(board: Board) -> None:
    for at in ({}, {(11, True): _ask}):
        task, due = _task(), []
        _train(StopOnRequestHook(), task, at, due)
        assert task.iteration == EPOCHS * STEPS


def test_an_evaluation_is_left_where_it_is(board: Board) -> None:
    task, due = _task(test=True), []
    with pytest.raises(Stopped, match="75") as stopped:
        _train(StopOnRequestHook(), task, {(4, False): lambda: _ask(signal.SIGUSR1)}, due)
    assert "SIGUSR1 has stopped the run after 4 of 12 steps;" in stopped.value.said
    assert "goes on from the last checkpoint in run" in stopped.value.said
    assert due == ["model_phase0.torch"]


def _train_on_one_of_two(rank: int) -> tuple[int, list[str], int, str]:
    task, due = _task(), []
    with listening(Board(), speaks=False):
        try:
            _train(StopOnRequestHook(), task, {(2, True): lambda: _ask(signal.SIGINT)} if rank == 1 else {}, due)
        except Stopped as stopped:
            return task.iteration, due, stopped.code, stopped.said
    return task.iteration, due, 0, ""


def test_a_signal_to_one_rank_stops_both_after_the_same_step(on_two_ranks: Any) -> None:
    first, second = on_two_ranks(_train_on_one_of_two)
    assert first == second
    assert first[:3] == (3, ["model_iteration3.torch"], 130)


def _exchange_with_numbers(rank: int, asked: bool) -> tuple[int, int]:
    stop, task = StopOnRequestHook(), _task()
    numbers = FiniteNumbersHook(NumberOptions(), Path(), ProgressHook(Path()), stop)
    task.base_model, task.loss = nn.Linear(1, 1), nn.Identity()
    exchanges, all_reduce = 0, distributed.all_reduce

    def count(*arguments: Any, **options: Any) -> Any:
        nonlocal exchanges
        exchanges += 1
        return all_reduce(*arguments, **options)

    distributed.all_reduce = count
    with listening(Board(), speaks=False):
        numbers.before_step(task)
        if rank == 1 and asked:
            _ask()
        numbers.on_backward(task)
        task.iteration += 1
        stop.on_step(task)
    return task.config["CHECKPOINT"]["CHECKPOINT_ITER_FREQUENCY"], exchanges


def test_in_the_stages_a_request_travels_with_the_flags_of_numbers(on_two_ranks: Any) -> None:
    assert on_two_ranks(lambda rank: _exchange_with_numbers(rank, asked=False)) == [(-1, 1)] * 2
    assert on_two_ranks(lambda rank: _exchange_with_numbers(rank, asked=True)) == [(1, 2)] * 2  # and which signal


def test_what_ranks_have_exchanged_in_the_step_is_not_exchanged_again(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook, task = StopOnRequestHook(), _task()
    _ask()
    hook.tell(False)  # this rank was asked after the exchange: the others do not know
    hook.on_step(task)
    hook.before_step(task)
    assert task.config["CHECKPOINT"]["CHECKPOINT_ITER_FREQUENCY"] == -1
    task.iteration += 1
    hook.tell(True)
    hook.on_step(task)
    with pytest.raises(Stopped):
        hook.before_step(task)
