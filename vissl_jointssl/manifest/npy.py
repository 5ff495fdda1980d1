"""Mapping `.npy` files: plain numbers only, and a header that the file's size bears out."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from vissl_jointssl.manifest.files import FileFault, size_of
from vissl_jointssl.manifest.npy_header import NPY_MAGIC, NpyHeaderError, read_npy_header


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
            if stream.read(len(NPY_MAGIC)) != NPY_MAGIC:
                raise NpyHeaderError
            shape, fortran_order, dtype = read_npy_header(stream)
        except NpyHeaderError:
            raise FileFault(f"cannot be read ({size} bytes; its header is not that of a .npy file)") from None
        start = stream.tell()
        if dtype.kind not in "biuf":
            raise FileFault(f"cannot be read (it holds {_kind(dtype)}; only plain numbers are opened)")
        if any(length < 1 for length in shape):
            raise FileFault(f"cannot be read (its header claims the shape {_shown(shape)})")
        wanted = start + math.prod(shape) * dtype.itemsize  # Python's integers do not overflow
        if size < wanted:
            raise FileFault(f"cannot be read ({size} bytes; its header claims {_shown(shape)} of {dtype})")
    return np.memmap(path, dtype, "r", start, shape, "F" if fortran_order else "C")


def _kind(dtype: np.dtype) -> str:
    return "pickled Python objects" if dtype.hasobject else f"values of type {str(dtype)[:40]}"


def _shown(shape: tuple[int, ...]) -> str:
    """A shape in a message; a header may claim a number of thousands of digits."""
    return "x".join(str(length) if abs(length) < 10**12 else "huge" for length in shape[:8])
