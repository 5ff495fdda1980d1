from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest

from vissl_jointssl.preparation.errors import PreparationError
from vissl_jointssl.preparation.workers import Lost, run_tasks, usable_cores

TASKS = """
import logging, os, resource, signal, sys, time, warnings
from pathlib import Path

class Odd(Exception):
    def __init__(self, name, year):  # cannot be unpickled: its text is its only argument
        super().__init__(f"{name} {year}")

def act(what):
    if what == "exit":
        os._exit(3)
    if what in ("SIGSEGV", "SIGKILL"):
        os.kill(os.getpid(), getattr(signal, what))
    if what == "hang":
        time.sleep(60)
    if what == "odd":
        raise Odd("DOE^JANE", 1950)
    if what == "memory":
        raise MemoryError
    if what == "bye":
        sys.exit("DOE^JANE")
    if what == "talk":
        os.write(1, b"DOE^JANE"), os.write(2, b"DOE^JANE"), print("DOE^JANE")
        warnings.warn("DOE^JANE")
        logging.getLogger("pydicom").error("DOE^JANE")
    return what, resource.getrlimit(resource.RLIMIT_CORE)[0]

def write_pid(folder):
    (Path(folder) / str(os.getpid())).touch()
    time.sleep(60)
"""


@pytest.fixture
def tasks(tmp_path, monkeypatch) -> ModuleType:
    """A module that workers can import as well."""
    (tmp_path / "worker_tasks.py").write_text(TASKS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "worker_tasks", raising=False)
    return importlib.import_module("worker_tasks")


def test_a_crash_or_a_hang_costs_one_task_and_says_how(tasks):
    words = ["fine", "exit", "SIGSEGV", "hang", "odd", "fine", "SIGKILL", "memory", "bye", "fine"]
    began = time.monotonic()
    results = dict(run_tasks(tasks.act, words, jobs=2, timeout=1.0))
    assert time.monotonic() - began < 8
    assert sorted(results) == list(range(len(words)))
    for number, word in enumerate(words):
        if word == "fine":
            assert results[number][0] == "fine"
    lost = {words[number]: result for number, result in results.items() if isinstance(result, Lost)}
    assert {word: one.code for word, one in lost.items()} == {
        "exit": "crashed",
        "SIGSEGV": "crashed",
        "SIGKILL": "crashed",
        "odd": "crashed",
        "memory": "crashed",
        "bye": "crashed",
        "hang": "timeout",
    }
    assert "exit code 3" in lost["exit"].reason
    assert "SIGSEGV" in lost["SIGSEGV"].reason
    assert "within 1 s" in lost["hang"].reason
    assert "Odd at worker_tasks.py:" in lost["odd"].reason
    assert "MemoryError" in lost["memory"].reason
    assert not any("DOE" in one.reason for one in lost.values())  # an exception's text may quote a header


def test_a_worker_is_silent_and_dumps_no_core(tasks, capfd):
    ((_, result),) = run_tasks(tasks.act, ["talk"], jobs=1, timeout=20)
    assert result == ("talk", 0)
    assert capfd.readouterr() == ("", "")


def test_a_crash_at_once_is_told_from_a_pool_that_cannot_start(tasks):
    results = dict(run_tasks(tasks.act, ["exit"] * 12, jobs=2, timeout=20))
    assert [results[number].code for number in range(12)] == ["crashed"] * 12


def test_workers_that_cannot_start_are_one_clear_error(monkeypatch):
    monkeypatch.setattr("vissl_jointssl.preparation.workers._begin", os.abort)
    with pytest.raises(PreparationError, match=r"end as soon as they start. Next: look for a limit on processes"):
        list(run_tasks(len, ["a"], jobs=1, timeout=20))


def wait_for_pids(folder: Path, count: int) -> list[int]:
    for _ in range(200):
        pids = [int(path.name) for path in folder.iterdir() if path.name.isdigit()]
        if len(pids) >= count:
            return pids
        time.sleep(0.05)
    raise AssertionError(f"{count} workers did not start")


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def gone_within(pids: list[int], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not any(map(alive, pids)):
            return True
        time.sleep(0.02)
    return False


def test_workers_end_with_the_iterator(tasks, tmp_path):
    (tmp_path / "pids").mkdir()
    running = run_tasks(tasks.write_pid, [str(tmp_path / "pids")] * 2, jobs=2, timeout=2.0)
    next(running)  # a timeout
    pids = wait_for_pids(tmp_path / "pids", 2)
    began = time.monotonic()
    running.close()
    assert gone_within(pids, 1)
    assert time.monotonic() - began < 10  # and not until the tasks end, after a minute


@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM", "SIGINT"])
def test_workers_end_with_the_process_that_started_them(tasks, tmp_path, name):
    (tmp_path / "pids").mkdir()
    script = tmp_path / "script.py"  # without a guard of __main__, as people write them
    script.write_text(
        "import worker_tasks\nfrom vissl_jointssl.preparation.workers import run_tasks\n"
        f"list(run_tasks(worker_tasks.write_pid, [{str(tmp_path / 'pids')!r}] * 2, 2, 60.0))\n"
    )
    parent = subprocess.Popen(
        [sys.executable, script],
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )
    pids = wait_for_pids(tmp_path / "pids", 2)
    os.kill(parent.pid, getattr(signal, name))
    assert gone_within([parent.pid, *pids], 5)
    assert parent.wait(5) != 0


def test_the_cores_are_those_this_process_may_use(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5, 8})
    assert usable_cores() == 3
