"""What a volume file may claim and unpack to, checked by its header before a voxel is decoded.

A header of a hundred bytes can ask for terabytes, and a megabyte of gzip can hold a gigabyte of zeros. Every decoder
takes the promise of the header here first, and reads no more than that.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from vissl_jointssl.preparation.errors import ReadError

MAX_VOXELS = 2**30  # twice a whole-body CT of 512 x 512 x 2000, all channels and points in time together
MAX_BYTES = 2**32  # 2**30 voxels of 4 bytes: what a worker may need for one array
MAX_AXES = 7
MAX_HEADER = 2**24  # text headers and the extensions of NIfTI; real ones have kilobytes
SPARE = 2**20  # bytes that may follow the voxels; some writers fill up a block
COPY_AGAIN = "copy it again from its source, or take it out of the folder"

_DEFLATE_RATIO = 1032  # zlib's own bound: 258 bytes from two bits
_CHUNK = 2**20


def check_claim(path: Path, shape: Sequence[int], itemsize: int) -> int:
    """The bytes of an array that a header promises.

    Args:
        path: For the message.
        shape: Every axis, channels too, as plain Python integers, which do not overflow.
        itemsize: Bytes of a voxel.

    Raises:
        ReadError: If an axis is negative or zero, there are too many axes, or the array would be larger than any scan.
    """
    shown = " x ".join(map(str, shape[:MAX_AXES]))
    if len(shape) > MAX_AXES:
        raise ReadError(path, f"claims to have {len(shape)} axes", COPY_AGAIN)
    if any(length < 0 for length in shape):
        raise ReadError(path, f"claims a negative size ({shown})", COPY_AGAIN)
    voxels = math.prod(shape)
    if voxels == 0:
        raise ReadError(path, f"holds no voxel ({shown})", "take it out of the folder", "empty")
    if voxels > MAX_VOXELS or voxels * itemsize > MAX_BYTES:
        reason = f"claims {shown} voxels of {itemsize} bytes, and at most {MAX_VOXELS} or {MAX_BYTES} bytes are read"
        raise ReadError(path, reason, "cut it to smaller volumes, or take it out of the folder", "too_large")
    return voxels * itemsize


def check_length(path: Path, promised: int, present: int) -> None:
    """Raise unless a file that is not packed holds the bytes that its header promises."""
    if present < promised:
        reason = f"is cut short: {max(present, 0)} of the {promised} bytes that its header promises are there"
        raise ReadError(path, reason, COPY_AGAIN)


def check_packed(path: Path, promised: int, packed: int) -> None:
    """Raise if so few packed bytes cannot unpack to what the header promises, so that nothing is set aside for it."""
    if promised > _DEFLATE_RATIO * max(packed, 0):
        reason = f"is cut short: {max(packed, 0)} packed bytes cannot hold the {promised} that its header promises"
        raise ReadError(path, reason, COPY_AGAIN)


def read_voxels(path: Path, stream: BinaryIO, promised: int) -> np.ndarray:
    """Exactly the promised bytes of a stream, which then has to end: packed streams compare their checksum there.

    Returns:
        `(promised,)` uint8.

    Raises:
        ReadError: If there are fewer bytes or many more.
    """
    voxels = np.empty(promised, np.uint8)  # pages are taken as they are filled, so that a short file costs little
    filled = 0
    while filled < promised:
        chunk = stream.read(min(_CHUNK, promised - filled))
        if not chunk:
            check_length(path, promised, filled)
        voxels[filled : filled + len(chunk)] = np.frombuffer(chunk, np.uint8)
        filled += len(chunk)
    spare = 0
    while chunk := stream.read(_CHUNK):
        spare += len(chunk)
        if spare > SPARE:
            reason = f"goes on for more than {SPARE} bytes after the {promised} that its header promises"
            raise ReadError(path, reason, COPY_AGAIN, "too_large")
    return voxels
