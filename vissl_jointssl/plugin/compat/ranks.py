"""The ranks of one node as processes: none outlives another, and how one ended is said."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping
from multiprocessing import parent_process
from multiprocessing.connection import wait
from typing import Any

import torch
from vissl.utils import distributed_launcher

from vissl_jointssl.plugin.machine_words import memory_words
from vissl_jointssl.plugin.stop_signals import Board, Stopped, listening, name_of, signals_held

SECONDS_TO_END = 2.0  # for ranks beside a failed one, to say what they have to say


class RankLostError(RuntimeError):
    """A rank was ended by a signal."""


def run_here(arguments: tuple[Any, ...], board: Board | None, relay: int | None) -> None:
    """Run the only rank in this process.

    Args:
        arguments: VISSL's, after the local rank (vissl/utils/distributed_launcher.py:161).
        board: Where requests to stop are noted; None leaves signals as they are.
        relay: As in `listening`.
    """
    if board is None:
        distributed_launcher._distributed_worker(0, *arguments)
        return
    with listening(board, relay):
        distributed_launcher._distributed_worker(0, *arguments)


def spawn_ranks(ranks: int, arguments: tuple[Any, ...], board: Board | None, relay: int | None) -> None:
    """Run all ranks of this node; when one fails or the user interrupts, none is left behind.

    Args:
        ranks: How many.
        arguments: VISSL's, after the local rank.
        board: As in `run_here`.
        relay: As in `run_here`.

    Raises:
        RankLostError: If a signal ended one.
        Exception: Whatever another failure of a rank comes to, with its traceback as text.
        Stopped: If the run was asked to stop, and has.
    """
    if arguments[0].MACHINE.DEVICE == "cpu":
        # Each rank would take every core: two ranks on two cores then run many times slower than one thread each.
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // ranks)))
    if board is None:
        _wait_for(_spawn(run_rank, ranks, (None, *arguments)))
        return
    with listening(board, relay):
        with signals_held():
            context = _spawn(run_rank, ranks, (board, *arguments))
        _wait_for(context)
    stopped = board.stopped()
    if stopped is not None:
        raise stopped


def run_rank(local_rank: int, board: Board | None, *arguments: Any) -> None:
    """Run the engine as one rank; importing this function is what brings the plugin into a spawned process."""
    if board is None:
        distributed_launcher._distributed_worker(local_rank, *arguments)
        return
    torch.multiprocessing._prctl_pr_set_pdeathsig(signal.SIGKILL)  # type: ignore[attr-defined]  # torch's own is SIGINT, which is a request here
    launcher = parent_process()
    if launcher is not None and not launcher.is_alive():
        return  # it was killed a moment before
    with listening(board, speaks=False):
        try:
            distributed_launcher._distributed_worker(local_rank, *arguments)
        except Stopped as stopped:
            board.report(stopped)


def _spawn(function: Callable[..., None], ranks: int, arguments: tuple[Any, ...]) -> Any:
    return torch.multiprocessing.spawn(function, nprocs=ranks, args=arguments, daemon=False, join=False)


def _wait_for(context: Any) -> None:
    """Wait for spawned ranks; the first failure ends all."""
    try:
        while True:
            for sentinel in wait(list(context.sentinels)):
                context.processes[context.sentinels[sentinel]].join()  # a moment may pass until its exit code is known
            # Before anything here ends a process: what has been ended by a signal is a cause and no consequence.
            lost = {
                rank: -process.exitcode
                for rank, process in enumerate(context.processes)
                if process.exitcode is not None and process.exitcode < 0
            }
            if lost:
                raise RankLostError(_words(lost))
            if context.join(grace_period=SECONDS_TO_END):
                return
    finally:
        for process in context.processes:
            if process.is_alive():
                process.kill()
                process.join()


def _words(lost: Mapping[int, int]) -> str:
    named = ", ".join(f"rank {rank} of this node was ended by {name_of(number)}" for rank, number in lost.items())
    likely = (
        "; that is how the kernel ends a process when memory runs out"
        if signal.SIGKILL in lost.values()
        else "; that is an error in native code, or of the machine"
        if set(lost.values()) & {signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGFPE, signal.SIGILL}
        else ""
    )
    return f"{named}{likely} ({memory_words()}). All ranks have ended; the same command resumes"
