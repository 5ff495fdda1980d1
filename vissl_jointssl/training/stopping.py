"""Signals to whoever started an engine, handed on to it: one to stop with a checkpoint, a second one to end at once.

An engine that was started from a terminal has the terminal's Ctrl-C already. It must be able to tell that from a second
one, so what is handed on goes through a pipe and not as a signal.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

ANSWER = "it ends after this step, with a checkpoint; a second signal ends it at once"
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class RunStopped(SystemExit):
    """An engine has stopped on request; the process ends with the exit code unless somebody catches it.

    Args:
        code: The exit code to end with, see `run_signs`.
        said: What a person should read.
    """

    def __init__(self, code: int, said: str) -> None:
        super().__init__(code)
        self.code: int = code
        self.said = said


class HandedOn:
    """Signals that this process has received while an engine ran.

    Attributes:
        pipe: For the engine to read: one byte a signal.
        received: Their numbers, in order.
    """

    def __init__(self) -> None:
        self.pipe, self._into = os.pipe()
        self.received: list[int] = []
        self._answered = 0

    def receive(self, number: int, frame: FrameType | None) -> None:
        """Python's handler."""
        self.received.append(number)
        if len(self.received) == 1:
            os.write(self._into, bytes([number]))

    def answer(self, bar: Any, process: subprocess.Popen[bytes]) -> None:
        """Say what a signal does, and end the engine at the second one.

        Raises:
            SystemExit: At the second signal, with 128 and its number as shells count.
        """
        if len(self.received) > self._answered:
            name = signal.Signals(self.received[0]).name
            bar.write(f"{bar.desc}: {name}: {ANSWER}", file=sys.stderr)
        self._answered = len(self.received)
        if self._answered > 1:
            process.kill()  # its ranks and their loader workers end with it
            process.wait()
            raise SystemExit(128 + self.received[1])

    def close(self) -> None:
        """Nobody reads any more."""
        os.close(self.pipe)
        os.close(self._into)


@contextmanager
def signals_handed_on() -> Iterator[HandedOn]:
    """Collect signals instead of ending; as before afterwards."""
    handed_on = HandedOn()
    before = {number: signal.signal(number, handed_on.receive) for number in STOP_SIGNALS}
    try:
        yield handed_on
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)  # None: not Python's
        handed_on.close()
