"""What processes do with stop signals: real signals, sent to real processes."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from vissl_jointssl.plugin.stop_signals import (
    STOP_SIGNALS,
    Board,
    Stopped,
    asked_to_stop,
    exit_code,
    listening,
    obey,
    signals_held,
)
from vissl_jointssl.training import stopping

FORK = multiprocessing.get_context("fork")
SECONDS = 20


@pytest.fixture
def start() -> Iterator[Callable[..., Any]]:
    """Start a function in a forked process of a session of its own; it calls its first argument when it is ready."""
    started = []

    def run(function: Callable[..., None], *arguments: Any) -> Any:
        ready = FORK.Event()
        process = FORK.Process(target=_in_a_session, args=(function, ready, *arguments))
        process.start()
        started.append(process)
        assert ready.wait(SECONDS)
        return process

    yield run
    for process in started:
        process.kill()
        process.join()


def _in_a_session(function: Callable[..., None], ready: Any, *arguments: Any) -> None:
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job of a shell ignores it
    function(ready.set, *arguments)


def _wait_until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + SECONDS
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("number", STOP_SIGNALS, ids=lambda number: number.name)
def test_the_first_signal_is_noted_and_nothing_else_happens(number: int) -> None:
    before = [signal.getsignal(one) for one in STOP_SIGNALS]
    board = Board()
    with listening(board, speaks=False):
        assert asked_to_stop() == 0
        os.kill(os.getpid(), number)
        _wait_until(asked_to_stop)
        assert asked_to_stop() == board.asked.value == number
    assert asked_to_stop() == 0
    assert [signal.getsignal(one) for one in STOP_SIGNALS] == before


def _wait_in_native_code(ready: Callable[[], None], board: Board, relay: int | None = None) -> None:
    with listening(board, relay):
        ready()
        ctypes.CDLL(None).pause()  # returns for a signal unless told not to; Python's handlers have no turn in it
        ctypes.CDLL(None).sleep(10 * SECONDS)


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_a_process_that_waits_in_native_code(start: Callable[..., Any], second: int) -> None:
    board = Board()
    process = start(_wait_in_native_code, board)
    os.kill(process.pid, signal.SIGTERM)
    _wait_until(lambda: board.asked.value)
    assert process.is_alive()
    os.kill(process.pid, second)
    process.join(2)
    assert process.exitcode == 128 + second


def test_a_signal_that_also_comes_through_the_starter_is_no_second_one(start: Callable[..., Any]) -> None:
    board = Board()
    relay, into = os.pipe()
    process = start(_wait_in_native_code, board, relay)
    os.kill(process.pid, signal.SIGINT)
    os.write(into, bytes([signal.SIGINT]))
    _wait_until(lambda: board.asked.value)
    process.join(0.3)
    assert process.is_alive()
    os.write(into, bytes([signal.SIGTERM]))
    process.join(2)
    assert process.exitcode == 128 + signal.SIGTERM


def test_a_signal_through_the_starter_counts_although_the_starter_is_gone(start: Callable[..., Any]) -> None:
    board = Board()
    relay, into = os.pipe()
    process = start(_wait_in_native_code, board, relay)
    os.write(into, bytes([signal.SIGUSR1]))
    os.close(into)
    _wait_until(lambda: board.asked.value == signal.SIGUSR1)
    os.kill(process.pid, signal.SIGUSR1)
    process.join(0.3)
    assert process.is_alive()  # the first of its own


def _obey(ready: Callable[[], None], relay: int) -> None:
    obey(relay)
    ready()
    time.sleep(10 * SECONDS)


def test_a_process_that_does_not_listen_ends_by_what_is_handed_on(start: Callable[..., Any]) -> None:
    relay, into = os.pipe()
    process = start(_obey, relay)
    os.write(into, bytes([signal.SIGTERM]))
    process.join(2)
    assert process.exitcode == -signal.SIGTERM


def _have_a_deaf_child(ready: Callable[[], None], board: Board, child_id: Any, well: Any) -> None:
    with listening(board):
        with signals_held():
            child = FORK.Process(target=time.sleep, args=(1.0,))
            child.start()
            os.kill(os.getpid(), signal.SIGTERM)  # while held: must not be lost
        child_id.value = child.pid
        ready()
        child.join()
        well.value = child.exitcode == 0 and asked_to_stop() == signal.SIGTERM


def test_a_process_born_deaf_survives_signals_and_its_parent_loses_none(start: Callable[..., Any]) -> None:
    board, child_id, well = Board(), FORK.Value("i", 0), FORK.Value("b", 0)
    process = start(_have_a_deaf_child, board, child_id, well)
    _wait_until(lambda: board.asked.value)
    for number in STOP_SIGNALS:
        os.kill(child_id.value, number)
    process.join(SECONDS)
    assert (process.exitcode, well.value) == (0, 1)


def test_exit_codes_tell_a_scheduler_from_a_person() -> None:
    assert [exit_code(number) for number in STOP_SIGNALS] == [130, 75, 75, 75]
    stopped = Stopped(signal.SIGTERM, "x" * 10_000)
    assert stopped.code == 75
    board = Board()
    assert board.stopped() is None
    board.report(stopped)
    again = board.stopped()
    assert again is not None
    assert (again.number, again.code) == (signal.SIGTERM, 75)
    assert again.said == "x" * 4095
    assert set(stopping.STOP_SIGNALS) < set(STOP_SIGNALS)
