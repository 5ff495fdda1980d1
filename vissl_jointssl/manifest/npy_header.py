"""The header of an `.npy` file, which may lie about its own length and hold anything at all."""

from __future__ import annotations

import io
import tokenize
import warnings
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.lib import format as npy_format

NPY_MAGIC = b"\x93NUMPY"

_LENGTHS = {
    b"\1\0": 2,
    b"\2\0": 4,
}  # bytes of the header's length, by version; 3.0 is for fields' names, which none has
_LONGEST = 10_000  # NumPy's own limit for headers of unknown origin, which it looks at after reading them
_NOT_PYTHON = (ValueError, TypeError, KeyError, SyntaxError, OverflowError, RecursionError, MemoryError)


class NpyHeader(NamedTuple):
    """What the file claims to hold; lengths may be negative or beyond any file."""

    shape: tuple[int, ...]
    fortran_order: bool
    dtype: np.dtype


class NpyHeaderError(ValueError):
    """The header is of an unknown version, of an impossible length, damaged or cut short."""


def read_npy_header(stream: BinaryIO) -> NpyHeader:
    """What follows `NPY_MAGIC`; the stream then stands at the first value.

    Raises:
        NpyHeaderError: See there.
    """
    version = stream.read(2)
    bytes_of_length = _LENGTHS.get(version)
    if bytes_of_length is None:
        raise NpyHeaderError("its header is of an unknown version")
    length = stream.read(bytes_of_length)
    wanted = int.from_bytes(length, "little")
    if wanted > _LONGEST:
        raise NpyHeaderError("its header is of an impossible length")
    parse = npy_format.read_array_header_1_0 if bytes_of_length == 2 else npy_format.read_array_header_2_0
    try:
        with warnings.catch_warnings():  # of headers written by Python 2, and of odd escapes within them
            warnings.simplefilter("ignore")
            shape, fortran_order, dtype = parse(io.BytesIO(length + stream.read(wanted)), max_header_size=_LONGEST)
    except (*_NOT_PYTHON, tokenize.TokenError):
        raise NpyHeaderError("its header is damaged or cut short") from None
    return NpyHeader(tuple(int(side) for side in shape), bool(fortran_order), dtype)
