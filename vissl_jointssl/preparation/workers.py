"""Work done in other processes, so that a decoder that crashes or hangs costs one file and not the run.

Decoders are C and C++ libraries, and files come from everywhere: a damaged one can end the process that reads it, or
keep it busy for ever. Each task goes to a process of a pool, alone; what it needs is small and so is what it returns.

The processes come from Python's fork server, which starts from nothing: they inherit no thread, no lock and no memory
of the program that prepares, whatever that has loaded.
"""

from __future__ import annotations

import ctypes
import logging
import multiprocessing
import os
import resource
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager
from dataclasses import dataclass
from multiprocessing.connection import wait as wait_for
from multiprocessing.context import ForkServerContext, ForkServerProcess
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, TypeVar

from pebble import ProcessExpired, ProcessPool

from vissl_jointssl.preparation.errors import PreparationError

Task = TypeVar("Task")
Result = TypeVar("Result")

_PRELOADED = (
    "vissl_jointssl.preparation.processing.pieces",
    "nibabel",
    "pydicom",
    "SimpleITK",
    "scipy.ndimage",
    "PIL.Image",
)
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_MOST_VAIN_STARTS = 3
_main_lock = threading.Lock()


@dataclass(frozen=True)
class Lost:
    """A task without a result.

    Attributes:
        code: "crashed" or "timeout", as in `errors.CODES`.
        reason: What happened, without any text of the file that was read.
    """

    code: str
    reason: str


def usable_cores() -> int:
    """Cores that this process may run on, which a container or a job scheduler makes fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_tasks(
    function: Callable[[Task], Result], tasks: Sequence[Task], jobs: int, timeout: float
) -> Generator[tuple[int, Result | Lost], None, None]:
    """Run a function over tasks, each in a worker process, and yield the results as they come.

    The workers end with the iterator, at once and whatever they do, and with this process even where it is killed.
    What they print, warn and log goes nowhere, for decoders quote headers.

    Args:
        function: Of a module; the exceptions it means to report are part of what it returns.
        tasks: What it is given, one by one. Function, tasks and results travel between processes: keep them small.
        jobs: Processes at a time.
        timeout: Seconds for one task.

    Yields:
        Position in `tasks`, and what the function returned; or `Lost` if it raised, ended its process or did not come
        to an end.

    Raises:
        PreparationError: If no worker process can be started.
    """
    waiting = list(range(len(tasks)))[::-1]
    vain = 0
    while waiting:
        before = len(waiting)
        yield from _run_pool(function, tasks, waiting, jobs, timeout)
        vain = vain + 1 if len(waiting) == before else 0
        if vain == _MOST_VAIN_STARTS:
            raise PreparationError(
                "the worker processes that read the scans end as soon as they start. Next: look for a limit on "
                "processes or memory (ulimit -a) and run again; what was finished is kept"
            )


def _run_pool(
    function: Callable[[Task], Result], tasks: Sequence[Task], waiting: list[int], jobs: int, timeout: float
) -> Generator[tuple[int, Result | Lost], None, None]:
    """Work until `waiting` is empty or the pool is broken; then `waiting` holds what is left."""
    pool = ProcessPool(min(jobs, len(waiting)), initializer=_begin, context=_Context())
    running: dict[Any, int] = {}
    try:
        while waiting or running:
            while waiting and len(running) < 2 * jobs:  # one more for each, so that nobody waits for work
                scheduled = pool.schedule(_guarded, (function, tasks[waiting[-1]]), timeout=timeout)
                running[scheduled] = waiting.pop()
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                number = running.pop(future)
                error = future.exception()
                if isinstance(error, BrokenProcessPool):
                    running[future] = number
                    return
                yield number, future.result() if error is None else _lost(error, timeout)
    except RuntimeError:  # of `schedule`, which the pool's threads told that it is broken before they told us
        if pool.active:
            raise
    finally:
        pool.stop()
        pool.join()
        waiting.extend(sorted(running.values(), reverse=True))


def _lost(error: BaseException, timeout: float) -> Lost:
    if isinstance(error, TimeoutError):
        return Lost("timeout", f"the reader did not end within {timeout:g} s")
    if isinstance(error, ProcessExpired):
        code = error.exitcode
        how = f"signal {signal.Signals(-code).name}" if -code in set(signal.Signals) else f"exit code {code}"
        return Lost("crashed", f"the reader ended its process ({how})")
    return Lost("crashed", f"the reader failed ({type(error).__name__})")


def _guarded(function: Callable[[Task], Result], task: Task) -> Result | Lost:
    raised = _Raised()
    with raised:
        return function(task)
    return Lost("crashed", f"the reader failed ({raised.words})")


class _Raised(AbstractContextManager["_Raised"]):
    """Any exception as the name of its type and the line that raised it.

    Its text may quote a header, and not every exception of a library survives the way between processes.
    """

    words = ""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if kind is None:
            return False
        last = traceback.extract_tb(trace)[-1]
        self.words = f"{kind.__name__} at {Path(last.filename).name}:{last.lineno}"
        return True


def _begin() -> None:
    """What a worker does first."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # ends it even while a decoder keeps the interpreter
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core dump would hold the scan and its header
    os.environ.setdefault("ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS", "1")  # the cores are taken by processes
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    _end_with_parent()


def _end_with_parent() -> None:
    """Nobody can hand in a result to a parent that was killed, and a new run may already be at work."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch(sentinel: int) -> None:
        wait_for([sentinel])
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, args=(parent.sentinel,), daemon=True).start()
    if sys.platform == "linux":
        # The thread gets no turn while a decoder holds the interpreter lock. The fork server ends with the parent.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class _Process(ForkServerProcess):
    """A process that does not run the main script again.

    Python would, to find what was defined there; our functions are in modules. A script without an
    `if __name__ == "__main__"` would otherwise prepare within each worker, and one that imports torch wait for it.
    """

    @staticmethod
    def _Popen(process_obj: BaseProcess) -> Any:
        with _main_lock:
            main = sys.modules["__main__"]
            sys.modules["__main__"] = ModuleType("__main__")
            try:
                return ForkServerProcess._Popen(process_obj)
            finally:
                sys.modules["__main__"] = main


class _Context(ForkServerContext):
    Process = _Process

    def __init__(self) -> None:
        super().__init__()
        self.set_forkserver_preload(list(_PRELOADED))
