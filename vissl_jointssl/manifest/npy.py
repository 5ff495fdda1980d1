"""Mapping `.npy` files: plain numbers only, and a header that the file's size bears out."""

from __future__ import annotations

import io
import math
import tokenize
import warnings
from pathlib import Path

import numpy as np
from numpy.lib import format as npy_format

from vissl_jointssl.manifest.files import FileFault, size_of

_MAGIC = 6  # bytes, then two of the version, then the header's own length
_LENGTHS = {1: 2, 2: 4}  # bytes of that length, by version; version 3 is for names of fields, which nothing here has
_LONGEST = 10_000  # NumPy's own limit, which it looks at after reading the header


def map_npy(path: Path) -> np.ndarray:
    """The array of a file, read-only and memory-mapped.

    Raises:
        FileFault: If the file is cut short or is no `.npy` of plain numbers, pickled objects above all.
        FileNotFoundError: If it does not exist.
        OSError: If it cannot be read.
    """
    size = size_of(path)
    with path.open("rb") as stream:
        try:
            shape, fortran_order, dtype, start = _read_header(stream)
        except (ValueError, TypeError, KeyError, SyntaxError, RecursionError, MemoryError, tokenize.TokenError):
            raise FileFault(f"cannot be read ({size} bytes; its header is not that of a .npy file)") from None
        if dtype.kind not in "biuf":
            raise FileFault(f"cannot be read (it holds {_kind(dtype)}; only plain numbers are opened)")
        if any(length < 1 for length in shape):
            raise FileFault(f"cannot be read (its header claims the shape {_shown(shape)})")
        wanted = start + math.prod(shape) * dtype.itemsize  # Python's integers do not overflow
        if size < wanted:
            raise FileFault(f"cannot be read ({size} bytes; its header claims {_shown(shape)} of {dtype})")
    return np.memmap(path, dtype, "r", start, shape, "F" if fortran_order else "C")


def _read_header(stream: io.BufferedReader) -> tuple[tuple[int, ...], bool, np.dtype, int]:
    """Shape, order, dtype, and where the voxels start."""
    major, _ = npy_format.read_magic(stream)
    if major not in _LENGTHS:
        raise ValueError
    length = int.from_bytes(stream.read(_LENGTHS[major]), "little")
    if length > _LONGEST:
        raise ValueError
    stream.seek(_MAGIC + 2)
    read = npy_format.read_array_header_1_0 if major == 1 else npy_format.read_array_header_2_0
    with warnings.catch_warnings():  # of headers that NumPy takes for Python 2's
        warnings.simplefilter("ignore")
        shape, fortran_order, dtype = read(stream)
    return shape, fortran_order, dtype, stream.tell()


def _kind(dtype: np.dtype) -> str:
    return "pickled Python objects" if dtype.hasobject else f"values of type {str(dtype)[:40]}"


def _shown(shape: tuple[int, ...]) -> str:
    """A shape in a message; a header may claim a number of thousands of digits."""
    return "x".join(str(length) if abs(length) < 10**12 else "huge" for length in shape[:8])
