"""Why a loader worker gave no batch, in words: what happened, with which samples, the likely cause, the next step."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from typing import Any

from vissl_jointssl.plugin.machine_words import memory_words, shared_memory_words
from vissl_jointssl.plugin.sample_names import sample_names, shown
from vissl_jointssl.plugin.stop_signals import name_of

NOT_HANDED_OVER = 74  # exit code of a worker that could not send its batch (EX_IOERR)
_SHARED_MEMORY = ("shared memory", "/dev/shm", "</torch_")  # in PyTorch's own words
_NATIVE = {signal.SIGSEGV, signal.SIGABRT, signal.SIGFPE, signal.SIGILL}


class LoaderError(RuntimeError):
    """A loader worker died, hung or had no room; nothing is put in place of the batch."""


def death_words(exit_code: int | None, workers: int) -> str:
    """How a worker ended, why and what to do.

    Args:
        exit_code: Of its process; negative for a signal.
        workers: How many there are, for each rank.
    """
    if exit_code == -signal.SIGKILL:
        return f"was killed (SIGKILL), which is how the kernel ends a process when memory runs out; {_memory(workers)}"
    if exit_code == -signal.SIGBUS:
        return f"met a bus error, which is how a full /dev/shm shows; {_shared(workers)}"
    if exit_code == NOT_HANDED_OVER:
        return f"could not hand over its batch, its last words in the log say why; {_shared(workers)}"
    if exit_code is not None and -exit_code in _NATIVE:
        return f"crashed in native code ({name_of(-exit_code)}), as a decoder does on a damaged file"
    if exit_code is not None and exit_code < 0:
        return f"was ended by {name_of(-exit_code)}"
    return f"ended its process (exit code {exit_code})"


def hang_words(seconds: float, workers: int) -> str:
    """What a worker that gave nothing for so long may be waiting for, and what to do."""
    return (
        f"gave nothing for {seconds:g} s: slow or hanging storage, a file that keeps its reader busy, or no room; "
        f"{memory_words()}; {shared_memory_words()}. Set config.JOINT_SSL.LOADER_TIMEOUT above {seconds:g}, or 0 to "
        f"wait for ever, or config.DATA.NUM_DATALOADER_WORKERS, now {workers}, to another number"
    )


def raised_words(error: BaseException, workers: int) -> str | None:
    """Why an exception means that a worker had no room; None if it means something else."""
    said = str(error)
    if any(words in said for words in _SHARED_MEMORY):
        return f"had no room in /dev/shm; {_shared(workers)}"
    if isinstance(error, MemoryError) or "not enough memory" in said or "can't allocate memory" in said:
        return f"had no memory left; {_memory(workers)}"
    return None


def batch_words(dataset: Any, indices: Sequence[int] | None) -> str:
    """The samples that a worker was at work on, as the manifest calls them."""
    return "" if not indices else f", at work on {shown(sample_names(dataset, indices))}"


def _memory(workers: int) -> str:
    return f"{memory_words()}. {_fewer(workers)}, or ask for more memory"


def _shared(workers: int) -> str:
    return f"{shared_memory_words()}. {_fewer(workers)}, or enlarge it (docker run --shm-size=8g)"


def _fewer(workers: int) -> str:
    return f"Set config.DATA.NUM_DATALOADER_WORKERS below {workers}" + (" (0 needs none)" if workers == 1 else "")
