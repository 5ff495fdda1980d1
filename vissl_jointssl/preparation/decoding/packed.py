"""Whether packed voxels are whole, looked at before ITK unpacks them.

Of a stream that ends early, ITK 5.4 gives back what happened to lie in memory, and it takes voxels of an NRRD that are
not packed at all. So the stream is unpacked once here, a piece at a time, for its length and checksum.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from vissl_jointssl.preparation.decoding.limits import COPY_AGAIN, SPARE, check_length, check_packed
from vissl_jointssl.preparation.errors import ReadError

BROKEN = (EOFError, zlib.error, gzip.BadGzipFile)

_CHUNK = 2**20
_ANY_HEADER = 47  # zlib finds out whether the stream is of zlib or of gzip, as ITK does


def check_zlib(path: Path, start: int, packed: int, promised: int) -> None:
    """Raise `ReadError` unless `packed` bytes at `start` are a zlib or gzip stream of the promised bytes."""
    with path.open("rb") as raw:
        raw.seek(start)
        _check(path, _inflated(raw, packed), packed, promised)


def check_gzip(path: Path, start: int, promised: int) -> None:
    """Raise `ReadError` unless the gzip streams from `start` to the end unpack to the promised bytes."""
    with path.open("rb") as raw:
        raw.seek(start)
        with gzip.GzipFile(fileobj=raw) as stream:
            _check(path, iter(lambda: stream.read(_CHUNK), b""), path.stat().st_size - start, promised)


def broken(path: Path, error: Exception) -> ReadError:
    """The error of a stream that ended in one of `BROKEN`."""
    reason = f"cannot be read: its packed voxels are damaged or cut short ({type(error).__name__})"
    return ReadError(path, reason, COPY_AGAIN)


def _check(path: Path, chunks: Iterator[bytes], packed: int, promised: int) -> None:
    check_packed(path, promised, packed)
    unpacked = 0
    try:
        for chunk in chunks:
            unpacked += len(chunk)
            if unpacked > promised + SPARE:
                reason = f"unpacks to more than the {promised} bytes that its header promises"
                raise ReadError(path, reason, COPY_AGAIN, "too_large")
    except BROKEN as error:
        raise broken(path, error) from None
    check_length(path, promised, unpacked)


def _inflated(raw: BinaryIO, packed: int) -> Iterator[bytes]:
    stream = zlib.decompressobj(_ANY_HEADER)
    while not stream.eof:
        block = stream.unconsumed_tail
        if not block:
            block = raw.read(min(_CHUNK, packed))
            packed -= len(block)
        if not block:
            raise EOFError
        yield stream.decompress(block, _CHUNK)
