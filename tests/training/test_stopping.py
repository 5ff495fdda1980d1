"""`jointssl train` and its engine: a signal to the one reaches the other once, and its exit code comes back."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from vissl_jointssl.run_signs import LAST_WORDS
from vissl_jointssl.training import RunStopped, command, engine

SECONDS = 20
FORK = multiprocessing.get_context("fork")
# An engine that says which signals it has been told of, and how often it got one itself, and then what `DOES` says.
ENGINE = f"""#!{sys.executable} -S
import os, select, signal, sys, time
own = []
signal.signal(signal.SIGINT, lambda number, frame: own.append(number))
signal.signal(signal.SIGTERM, signal.SIG_DFL)
open("ready", "w").close()
pipe = int(os.environ["JOINT_SSL_STOP_PIPE"])
told = os.read(pipe, 1)[0]
time.sleep(0.3)
more = os.read(pipe, 9) if select.select([pipe], [], [], 0)[0] else b""
open("said", "w").write(str([told, *more, len(own)]))
print("{LAST_WORDS}stopped, goes on from model_iteration7.torch", flush=True)
DOES
"""


@pytest.fixture
def train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Any]]:
    """Start `jointssl train` with a toy engine, in a process and session of its own; waits until the engine runs."""
    started = []

    def start(does: str) -> Any:
        stub = tmp_path / "engine"
        stub.write_text(ENGINE.replace("DOES", does))
        stub.chmod(0o755)
        monkeypatch.chdir(tmp_path)
        process = FORK.Process(target=_train, args=(stub, tmp_path))
        process.start()
        started.append(process)
        deadline = time.monotonic() + SECONDS
        while not (tmp_path / "ready").exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return process

    yield start
    for process in started:
        process.kill()
        process.join()


def _train(stub: Path, folder: Path) -> None:
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job of a shell ignores it
    engine.sys = SimpleNamespace(executable=str(stub), stderr=sys.stderr)  # type: ignore[assignment]

    def one_stage(recipe: Any, say: Any) -> Path:
        engine.run_engine([], folder, "stage 1 of 3")
        return folder

    command.train = one_stage
    command.read_recipe = lambda recipe, changes: None
    (folder / "err").touch()
    sys.stderr = (folder / "err").open("w", buffering=1)
    sys.exit(command.run(argparse.Namespace(recipe=None, changes=[], dry_run=False, plan=False, json=False)))


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 75), (signal.SIGUSR1, 75), (signal.SIGINT, 130)], ids=["TERM", "USR1", "INT"]
)
def test_a_signal_is_handed_on_and_the_engines_exit_code_comes_back(
    train: Callable[[str], Any], tmp_path: Path, number: int, code: int
) -> None:
    process = train(f"sys.exit({code})")
    os.kill(process.pid, number)
    process.join(SECONDS)
    assert process.exitcode == code
    assert (tmp_path / "said").read_text() == str([int(number), 0])
    said = (tmp_path / "err").read_text()
    assert f"stage 1 of 3: {signal.Signals(number).name}: it ends after this step, with a checkpoint" in said
    assert said.endswith("jointssl train: stage 1 of 3: stopped, goes on from model_iteration7.torch\n")


def test_a_terminals_interrupt_reaches_the_engine_once_as_a_signal_and_once_through_the_pipe(
    train: Callable[[str], Any], tmp_path: Path
) -> None:
    process = train("sys.exit(130)")
    os.killpg(process.pid, signal.SIGINT)
    process.join(SECONDS)
    assert process.exitcode == 130
    assert (tmp_path / "said").read_text() == str([int(signal.SIGINT), 1])


def test_a_second_signal_ends_an_engine_that_does_not_end(train: Callable[[str], Any], tmp_path: Path) -> None:
    process = train("open('pid', 'w').write(str(os.getpid()))\ntime.sleep(1000)")
    os.kill(process.pid, signal.SIGTERM)
    deadline = time.monotonic() + SECONDS
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGTERM)
    process.join(3)
    assert process.exitcode == 128 + signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_an_engine_that_was_ended_by_the_signal_before_it_listened_has_been_stopped_too(
    train: Callable[[str], Any], tmp_path: Path
) -> None:
    process = train("os.kill(os.getpid(), told)")
    os.kill(process.pid, signal.SIGTERM)
    process.join(SECONDS)
    assert process.exitcode == 75
    assert "stage 1 of 3 was stopped before its first step; the same command starts it again" in (
        (tmp_path / "err").read_text()
    )


def test_an_engine_that_was_ended_by_a_signal_of_somebody_else_has_failed(
    train: Callable[[str], Any], tmp_path: Path
) -> None:
    process = train("os.kill(os.getpid(), 9)")
    os.kill(process.pid, signal.SIGTERM)
    process.join(SECONDS)
    assert process.exitcode == 1
    assert "stage 1 of 3 failed (exit -9)" in (tmp_path / "err").read_text()


def test_whoever_catches_nothing_ends_with_the_code() -> None:
    with pytest.raises(SystemExit) as ended:
        raise RunStopped(75, "stopped")
    assert (ended.value.code, ended.value.said) == (75, "stopped")
