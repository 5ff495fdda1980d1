"""Loader workers that die, hang or have no room: what happened is said, and nobody waits for ever."""

from __future__ import annotations

import ctypes
import functools
import multiprocessing
import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, Dataset, default_collate

from vissl_jointssl.machine_memory import MachineMemory
from vissl_jointssl.plugin import machine_words
from vissl_jointssl.plugin.compat.loader import WatchedLoader
from vissl_jointssl.plugin.loader_faults import LoaderError, raised_words
from vissl_jointssl.plugin.options import RunOptions
from vissl_jointssl.plugin.stop_signals import STOP_SIGNALS, Board, listening

from vissl import data  # isort: skip - after the plugin has made it importable
from vissl.config import AttrDict  # isort: skip

SECONDS = 20
BAD = 5  # the sample at which something happens


class _Samples(Dataset):
    """Eight numbers, one of which does something; as much of VISSL's data set as the loader looks at."""

    data_objs = (object(),)

    def __init__(self, act: Callable[[], Any] | None = None, **options: Any) -> None:
        self.cfg = AttrDict({"JOINT_SSL": options})
        self.act = act

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> Any:
        acted = self.act() if self.act is not None and index == BAD else None
        return index if acted is None else acted


def _kill_itself(number: int) -> None:
    os.kill(os.getpid(), number)


def _raise(error: Exception) -> None:
    raise error


def _loader(act: Callable[[], Any] | None = None, workers: int = 2, **options: Any) -> WatchedLoader:
    torch.set_num_threads(1)  # a forked child cannot use the threads of its parent
    context = multiprocessing.get_context("fork") if workers else None
    return WatchedLoader(
        _Samples(act, **options), num_workers=workers, batch_size=2, multiprocessing_context=context, collate_fn=list
    )


FULL = RuntimeError("unable to write to file </torch_12_34_0>: No space left on device (28)")
SIZES = r"\S+ [GM]iB of \S+ [GM]iB free"
MEMORY, SHARED = rf"memory: {SIZES}", rf"/dev/shm: {SIZES}"
FEWER = r"\. Set config\.DATA\.NUM_DATALOADER_WORKERS below 2, or "
# what happens, and what is said about it
FAULTS = {
    "exits": (functools.partial(os._exit, 3), r", ended its process \(exit code 3\)"),
    "killed": (
        functools.partial(_kill_itself, signal.SIGKILL),
        rf", was killed \(SIGKILL\), which is how .* memory runs out; {MEMORY}.*{FEWER}ask for more memory",
    ),
    "bus error": (
        functools.partial(_kill_itself, signal.SIGBUS),
        rf", met a bus error, which is how a full /dev/shm shows; {SHARED}{FEWER}enlarge it",
    ),
    "crash": (
        functools.partial(_kill_itself, signal.SIGSEGV),
        r", crashed in native code \(SIGSEGV\), as a decoder does on a damaged file",
    ),
    "memory error": (functools.partial(_raise, MemoryError()), rf", had no memory left; {MEMORY}.*{FEWER}"),
    "full": (functools.partial(_raise, FULL), rf", had no room in /dev/shm; {SHARED}{FEWER}"),
    "not sent": (lambda: lambda: None, rf", could not hand over its batch, its last words .*; {SHARED}{FEWER}"),
    "hangs": (
        functools.partial(time.sleep, 100 * SECONDS),
        rf", gave nothing for 1 s: .*; {MEMORY}.*; {SHARED}\. Set config\.JOINT_SSL\.LOADER_TIMEOUT above 1",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_happened_to_a_worker_is_said_with_its_samples_and_no_worker_is_left(fault: str) -> None:
    act, said = FAULTS[fault]
    batches = iter(_loader(act, LOADER_TIMEOUT=1 if fault == "hangs" else 600))
    workers = list(batches._workers)
    start = time.monotonic()
    with pytest.raises(LoaderError, match=r"at work on (sample 0, sample 1, )?sample 4, sample 5" + said):
        list(batches)  # a batch that is ready may be lost with its worker, so any may be the one that is missed
    for worker in workers:
        worker.join(SECONDS)
        assert not worker.is_alive()
    assert time.monotonic() - start < SECONDS


class _Large(_Samples):
    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.ones(2**20)  # 4 MiB


def _load_with_little_shared_memory(size: str, answer: Any) -> None:
    """In a mount namespace of its own, so that nobody else's /dev/shm becomes small."""
    libc = ctypes.CDLL(None)
    new_mounts, private = 0x20000, 0x44000  # CLONE_NEWNS; MS_REC | MS_PRIVATE
    if libc.unshare(new_mounts) or libc.mount(b"none", b"/", None, private, None):
        answer.send("not allowed")
        return
    libc.mount(b"tmpfs", b"/dev/shm", b"tmpfs", 0, f"size={size}".encode())
    loader = WatchedLoader(
        _Large(), num_workers=2, batch_size=2, multiprocessing_context="fork", collate_fn=_COLLATIONS[size]
    )
    kept = []
    try:
        for batch in loader:
            kept.append(batch)  # they stay in /dev/shm as long as they are kept
        answer.send(f"{len(kept)} batches")
    except LoaderError as error:
        answer.send(str(error))


# PyTorch's own lays a batch into shared memory within the worker; VISSL's leave that to the thread that sends it.
_COLLATIONS = {"12m": torch.stack, "13m": default_collate, "99m": torch.stack}


@pytest.mark.parametrize("size", _COLLATIONS)
def test_a_full_shared_memory_is_said(size: str) -> None:
    torch.set_num_threads(1)
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    rank = context.Process(target=_load_with_little_shared_memory, args=(size, sender))
    rank.start()
    assert receiver.poll(SECONDS)
    said = receiver.recv()
    rank.join()
    if said == "not allowed":
        pytest.skip("a small /dev/shm of its own needs the right to mount")
    if size == "99m":
        assert said == "4 batches"
    else:
        assert re.search(r"loader worker.*sample \d, .*(had no room in /dev/shm|could not hand over its batch)", said)
        assert f"MiB of {size[:2]} MiB free. Set config.DATA.NUM_DATALOADER_WORKERS below 2" in said


def test_an_error_of_the_data_is_raised_as_it_is() -> None:
    batches = iter(_loader(functools.partial(_raise, OSError("volume5 is cut short"))))
    next(batches), next(batches)
    with pytest.raises(OSError, match="volume5 is cut short"):
        next(batches)
    assert raised_words(ValueError("no"), 2) is None


def test_a_slow_worker_is_waited_for_within_the_limit_and_for_ever_with_none() -> None:
    for limit in (600, 0):
        batches = list(_loader(functools.partial(time.sleep, 1.5), LOADER_TIMEOUT=limit))
        assert [index for batch in batches for index in batch] == list(range(8))


def test_a_limit_below_0_is_refused() -> None:
    assert RunOptions(stage=1).faults() == []
    assert RunOptions(stage=1, loader_timeout=-1).faults() == [
        "JOINT_SSL.LOADER_TIMEOUT is -1; it must be at least 0: no limit"
    ]


def test_signals_to_every_worker_cost_no_batch() -> None:
    with listening(Board(), speaks=False):
        batches = iter(_loader(functools.partial(time.sleep, 0.5)))
        for worker in batches._workers:
            for number in STOP_SIGNALS:
                os.kill(worker.pid, number)
        assert [index for batch in batches for index in batch] == list(range(8))


def _load_in_a_rank(workers: Any) -> None:
    batches = iter(_loader(functools.partial(time.sleep, 100 * SECONDS)))
    for number, worker in enumerate(batches._workers):
        workers[number] = worker.pid
    list(batches)


def test_workers_end_with_a_rank_that_is_killed() -> None:
    context = multiprocessing.get_context("fork")
    workers = context.Array("i", 2)
    rank = context.Process(target=_load_in_a_rank, args=(workers,))
    rank.start()
    deadline = time.monotonic() + SECONDS
    while not all(workers):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    rank.kill()
    rank.join()
    left = list(workers)
    while left and time.monotonic() < deadline:
        left = [worker for worker in left if _runs(worker)]
        time.sleep(0.01)
    for worker in left:
        os.kill(worker, signal.SIGKILL)
    assert not left


def _runs(process: int) -> bool:
    stat = Path(f"/proc/{process}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"  # nobody may be there to reap it


def test_stock_configs_and_loaders_without_workers_are_pytorchs_own() -> None:
    assert data.DataLoader is WatchedLoader
    stock = _Samples()
    stock.cfg = AttrDict({})
    batches = iter(WatchedLoader(stock, num_workers=1, multiprocessing_context="fork", collate_fn=list))
    assert type(batches) is type(iter(DataLoader(stock, num_workers=1, multiprocessing_context="fork")))
    assert batches._timeout == 0
    assert [index for batch in _loader(workers=0) for index in batch] == list(range(8))


def test_memory_is_said_for_the_machine_and_for_a_job_with_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = MachineMemory(2**34, 3 * 2**30)
    monkeypatch.setattr(machine_words, "machine_memory", lambda: memory)
    assert machine_words.memory_words() == "memory: 3.0 GiB of 16.0 GiB free"
    memory = MachineMemory(2**34, 3 * 2**30, 2**32, 2**30)
    assert machine_words.memory_words().endswith(", 1.0 GiB of 4.0 GiB allowed to this job in use")
    monkeypatch.setattr(machine_words, "machine_memory", lambda: None)
    assert machine_words.memory_words() == "memory: unknown on this system"
    usage = SimpleNamespace(total=2**30, free=2**27)
    monkeypatch.setattr(machine_words.shutil, "disk_usage", lambda path: usage)
    assert machine_words.shared_memory_words() == "/dev/shm: 128 MiB of 1.0 GiB free"
