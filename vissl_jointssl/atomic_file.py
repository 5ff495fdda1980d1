"""Files that are either whole or as they were before: after a kill, a crash or a full disk."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def replaced_at_once(path: Path | str) -> Iterator[BinaryIO]:
    """A new file beside `path`, which takes its place when the block ends and everything is on the disk.

    When the block raises, the new file goes and `path` stays as it was. Folders above `path` are made.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not *.torch: VISSL takes every such file in CHECKPOINT.DIR for one of its own (vissl/utils/checkpoint.py:523).
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".part-", suffix=".part")
    beside = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        beside.chmod(0o666 & ~_umask())  # temporary files are private to their owner, results are for the group
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def write_at_once(data: bytes, path: Path | str) -> None:
    """Write bytes so that `path` holds either all of them or what it held before."""
    with replaced_at_once(path) as stream:
        stream.write(data)


def _umask() -> int:
    mask = os.umask(0)  # the only way to read it is to set it
    os.umask(mask)
    return mask
