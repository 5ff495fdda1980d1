"""One run at a time over one prepared folder."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vissl_jointssl.preparation.errors import PreparationError, printable

LOCK_FILE = ".lock"


@contextmanager
def only_run_in(folder: Path) -> Iterator[None]:
    """Hold the folder, which is made where it does not exist, until the block ends or this process does.

    The file of the lock stays: to remove it would let a third run lock a new one beside a second that waits for the
    old.

    Raises:
        PreparationError: If another run holds it.
        OSError: If the folder cannot be made or written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK_FILE).open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PreparationError(
                f"{printable(folder)}: another run is preparing into it. Next: wait for that to end, or give --out "
                "another folder"
            ) from None
        yield
