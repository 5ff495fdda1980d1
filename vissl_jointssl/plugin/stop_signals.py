"""Signals that ask a run to stop: the first one is noted, a second one ends the process at once.

A terminal and a scheduler send a signal to every process of a run, `kill` to one. So each process listens, and what
one has heard it tells the others not by a signal, which would be the second: the launcher of a node and its ranks share
a board, and who starts a launcher (`training.engine`) hands signals on through a pipe.

A thread listens, not a handler: Python runs handlers between two steps of the main thread, which may be waiting for
another rank, or for a disk, for ever.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import socket
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.sharedctypes import RawArray, RawValue
from types import FrameType

from vissl_jointssl.run_signs import INTERRUPTED, STOPPED

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)  # the last is submitit's
KILLED = 128  # plus the signal's number: the exit code after a second one, as shells count
ANSWER = "the run ends after this step, with a checkpoint; a second signal ends it at once"
_WORDS = 4096  # bytes

_heard: Board | None = None  # this process' board, while it listens


class Stopped(SystemExit):
    """The run has ended as it was asked to.

    Args:
        number: The signal that asked.
        said: What a person should read: the cause, and what the same command goes on from.
    """

    def __init__(self, number: int, said: str) -> None:
        super().__init__(exit_code(number))
        self.number = number
        self.said = said


class Board:
    """What the processes of one node share: `asked`, a signal's number or 0, and how the run has stopped.

    Travels to a process only when that is started.
    """

    def __init__(self) -> None:
        self.asked = RawValue("i", 0)
        self._number = RawValue("i", 0)
        self._said = RawArray("c", _WORDS)

    def report(self, stopped: Stopped) -> None:
        """Leave word for the launcher; the ranks of a node all say the same."""
        self._said.value = stopped.said.encode()[: _WORDS - 1]
        self._number.value = stopped.number

    def stopped(self) -> Stopped | None:
        """How the run has stopped, if it has."""
        if not self._number.value:
            return None
        return Stopped(self._number.value, self._said.value.decode(errors="replace"))


def exit_code(number: int) -> int:
    """Of a run that a signal has stopped in good order."""
    return INTERRUPTED if number == signal.SIGINT else STOPPED


def asked_to_stop() -> int:
    """The signal that this process or another of its node has been sent, or 0."""
    return _heard.asked.value if _heard is not None else 0


@contextmanager
def listening(board: Board, relay: int | None = None, speaks: bool = True) -> Iterator[None]:
    """Note stop signals on a board; only the main thread can begin this.

    Args:
        board: Told the first signal.
        relay: A pipe with signals that the starter of this process was sent, one byte each.
        speaks: Whether the first signal is answered with a line in the log.
    """
    global _heard
    heard, told = socket.socketpair()
    told.setblocking(False)
    handlers = {number: signal.signal(number, _leave_it_to_the_thread) for number in STOP_SIGNALS}
    for number in STOP_SIGNALS:
        signal.siginterrupt(number, False)  # native code that waits or writes need not know
    wakeup = signal.set_wakeup_fd(told.fileno(), warn_on_full_buffer=False)
    thread = threading.Thread(target=_listen, args=(board, heard, relay, speaks), name="stop_signals", daemon=True)
    thread.start()
    outer, _heard = _heard, board
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)  # a rank is started with signals held
    try:
        yield
    finally:
        _heard = outer
        signal.set_wakeup_fd(wakeup)
        for number, handler in handlers.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)  # None: not Python's
        told.close()
        thread.join()
        heard.close()


def obey(relay: int) -> None:
    """End by the first signal that the starter hands on, for a process that is not going to listen."""

    def wait_and_end() -> None:
        for number in os.read(relay, 1):
            os.kill(os.getpid(), number)

    threading.Thread(target=wait_and_end, name="stop_signals", daemon=True).start()


@contextmanager
def signals_held() -> Iterator[None]:
    """Processes started here are born deaf to stop signals, and stay so unless they listen; none is lost for this one.

    That is how loader workers, and the fork server behind them, survive a signal to the whole process group: the step
    that is to be finished needs them. Whatever ends them must use SIGKILL.
    """
    resource_tracker.ensure_running()  # makes this thread hear again where it has to be started first
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def name_of(number: int) -> str:
    """`SIGTERM`, or the bare number where there is no name."""
    return signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"


def _leave_it_to_the_thread(number: int, frame: FrameType | None) -> None:
    """A handler must be there for the signal's number to be written to the wakeup socket."""


def _listen(board: Board, heard: socket.socket, relay: int | None, speaks: bool) -> None:
    own = heard.fileno()
    sources = [own] if relay is None else [own, relay]
    count: Counter[int] = Counter()
    while True:
        for source in select.select(sources, [], [])[0]:
            numbers = os.read(source, 64)
            if not numbers:
                if source == own:
                    return
                sources.remove(source)  # the starter is gone; the run goes on
            for number in numbers:
                if number not in STOP_SIGNALS:
                    continue
                count[source] += 1
                if count[source] > 1:
                    _end_at_once(number)
                if not board.asked.value:
                    board.asked.value = number
                if speaks and count.total() == 1:
                    logging.warning(f"{name_of(number)}: {ANSWER}")


def _end_at_once(number: int) -> None:
    """Without a checkpoint; ranks and loader workers end with whoever started them."""
    sys.stderr.write(f"{name_of(number)} for the second time: ended at once, without a checkpoint\n")
    sys.stderr.flush()
    os._exit(KILLED + number)
