"""Writing files that are either whole or as they were before."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import torch


def save_atomically(obj: object, path: Path | str) -> None:
    """``torch.save`` that leaves either the whole new file or the old one, also when killed or out of disk."""
    with _replacing(Path(path)) as stream:
        torch.save(obj, stream)


def write_atomically(data: bytes, path: Path | str) -> None:
    """Write bytes so that ``path`` holds either all of them or what it held before."""
    with _replacing(Path(path)) as stream:
        stream.write(data)


@contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    """A stream to a file beside ``path`` that takes its place once everything is on the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not *.torch: VISSL takes every such file in CHECKPOINT.DIR for one of its own (vissl/utils/checkpoint.py:523).
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with beside.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
