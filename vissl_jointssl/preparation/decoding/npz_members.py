"""The arrays inside a `.npz`, streamed: their headers first, then a row at a time.

What a header claims is held against the size that the zip states, and against a cap, before anything is unpacked.
"""

from __future__ import annotations

import io
import math
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from vissl_jointssl.preparation.errors import ReadError

MAX_ARRAY_BYTES = 2**36  # 64 GiB; the largest of MedMNIST unpacks to 12 GB
HEADER_BYTES = 2**14  # NumPy writes 128 and reads no more than 10,000
_AGAIN = "get the file again from its source"
_PLAIN = "save plain numbers with numpy.savez_compressed"


@dataclass(frozen=True)
class ArrayHeader:
    """What the header of one array says.

    Attributes:
        name: Such as "train_images".
        shape: (N, ...), N samples.
        dtype: Of plain numbers.
        start: Bytes before the first value.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    start: int

    @property
    def row_bytes(self) -> int:
        """Size of one sample or label."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize


@contextmanager
def opened_npz(path: Path) -> Iterator[zipfile.ZipFile]:
    """The zip behind a `.npz`; whatever it raises inside the block leaves as a `ReadError`."""
    try:
        if path.stat().st_size == 0:
            raise ReadError(path, "is empty (0 bytes)", _AGAIN, "empty")
        with zipfile.ZipFile(path) as archive:
            yield archive
    except ReadError:
        raise
    except FileNotFoundError:
        raise ReadError(path, "does not exist", "check the path", "missing") from None
    except PermissionError:
        raise ReadError(path, "may not be read", "change its permissions", "forbidden") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, OverflowError, struct.error) as error:
        raise ReadError(path, f"is damaged or no .npz ({type(error).__name__})", _AGAIN) from None
    except (NotImplementedError, RuntimeError):  # RuntimeError is zipfile's word for a password
        raise ReadError(path, "is packed in a way that NumPy does not write", _AGAIN, "unsupported") from None


def parse_header(first_bytes: bytes) -> tuple[tuple[int, ...], bool, np.dtype, int]:
    """Shape, whether in Fortran order, type, and length of a `.npy` header.

    Args:
        first_bytes: `HEADER_BYTES` of the file, or all of a shorter one: a header may claim any length of itself.

    Raises:
        ValueError: If they are no such header.
    """
    start = io.BytesIO(first_bytes)
    try:
        version = npy.read_magic(start)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran_order, dtype = read(start)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError, EOFError, tokenize.TokenError) as error:
        raise ValueError(f"no header of a .npy file ({type(error).__name__})") from None
    return shape, fortran_order, dtype, start.tell()


def read_header(archive: zipfile.ZipFile, path: Path, name: str) -> ArrayHeader:
    """The header of the member `name`.npy, checked against the size that the zip states.

    Raises:
        ReadError: If it is missing, damaged, not of plain numbers, empty, too large, or of another size than stated.
    """
    try:
        info = archive.getinfo(f"{name}.npy")
    except KeyError:
        raise ReadError(path, f"holds no array {name!r}", _PLAIN, "unsupported") from None
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise NotImplementedError
    with archive.open(info) as member:
        first_bytes = member.read(HEADER_BYTES)
    try:
        shape, fortran_order, dtype, start = parse_header(first_bytes)
    except ValueError:
        raise ReadError(path, f"{name} has a damaged header", _AGAIN) from None
    if dtype.hasobject:
        reason = f"{name} holds pickled Python objects, which can run code and are never loaded"
        raise ReadError(path, reason, _PLAIN, "unsupported")
    if dtype.kind not in "biuf" or fortran_order:
        order = " in Fortran order" if fortran_order else ""
        raise ReadError(path, f"{name} is of type {dtype}{order}", _PLAIN, "unsupported")
    if not shape or min(shape) < 1:
        raise ReadError(
            path, f"{name} has shape {shape}", _PLAIN, "empty" if shape and min(shape) == 0 else "dimensions"
        )
    claimed = math.prod(shape) * dtype.itemsize
    if claimed > MAX_ARRAY_BYTES:
        raise ReadError(path, f"{name} claims {claimed} bytes", _PLAIN, "too_large")
    if start + claimed != info.file_size:
        reason = f"{name} claims {claimed} bytes, the zip holds {info.file_size - start}"
        raise ReadError(path, reason, _AGAIN)
    return ArrayHeader(name, shape, dtype, start)


def read_rows(archive: zipfile.ZipFile, path: Path, header: ArrayHeader) -> Iterator[bytes]:
    """The bytes of each sample; zipfile checks the sum of all as the last are read."""
    with archive.open(f"{header.name}.npy") as member:
        member.read(header.start)
        for number in range(header.shape[0]):
            row = member.read(header.row_bytes)
            if len(row) != header.row_bytes:
                raise ReadError(path, f"{header.name} ends within sample {number} of {header.shape[0]}", _AGAIN)
            yield row
