"""2D images without a header of a picture: `.npy`, and JSRT's raw X-rays."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vissl_jointssl.preparation.decoding.limits import COPY_AGAIN
from vissl_jointssl.preparation.decoding.numpy_arrays import read_npy_array
from vissl_jointssl.preparation.errors import ReadError

RAW_SUFFIX = ".img"
_SIDE, _LARGEST = 2048, 4095


def is_jsrt(path: Path) -> bool:
    """Whether a file has the suffix and the exact size of a raw X-ray of the JSRT database: 8,388,608 bytes."""
    try:
        return path.suffix.lower() == RAW_SUFFIX and path.stat().st_size == _SIDE * _SIDE * 2
    except OSError:
        return False


def read_jsrt(path: Path) -> np.ndarray:
    """Read a raw X-ray of the JSRT database (Shiraishi et al., AJR 174, 2000).

    2048 x 2048 big-endian numbers of 12 bits that follow the film's density, so that lungs are high and bone is low;
    they are turned round here, as readers of X-rays expect.

    Returns:
        `(2048, 2048)` uint16 over its whole range, larger is brighter.

    Raises:
        ReadError: If a value has more than 12 bits, so that the file is something else, or all are equal.
    """
    try:
        stored = np.fromfile(path, ">u2").reshape(_SIDE, _SIDE)
    except (OSError, ValueError):
        raise ReadError(path, "cannot be read to its end", COPY_AGAIN) from None
    if stored.min() == stored.max():
        reason = f"every pixel is {stored.flat[0]}"
        raise ReadError(path, reason, "take it out of the folder: it shows nothing", "constant")
    if stored.max() > _LARGEST:
        reason = f"has the size of a JSRT X-ray, and values to {stored.max()}, above {_LARGEST}"
        raise ReadError(path, reason, "convert it to PNG", "unsupported")
    return ((_LARGEST - stored.astype(np.uint32)) * 65535 // _LARGEST).astype(np.uint16)


def read_plane(path: Path, at_most: int) -> tuple[np.ndarray, None, tuple[str, ...]]:
    """Read a 2D `.npy`: `(H, W)`, or `(H, W, 3)` in colour.

    Whole numbers that fit 8 or 16 bits stay as they are; others are stretched over 16 bits, and a note says so.

    Returns:
        As a `Picture` has them: array, no modality, notes.

    Raises:
        ReadError: If it is damaged, holds pickled objects, is no image, too large, not finite, or of one value.
    """
    array = read_label_plane(path, at_most)
    colour = array.ndim == 3 and array.shape[-1] == 3
    if not (array.ndim == 2 or colour) or min(array.shape) < 1:
        raise ReadError(
            path, f"is not one 2D image: it has shape {array.shape}", "give (H, W) or (H, W, 3)", "dimensions"
        )
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ReadError(path, "holds NaN or infinite pixels", "replace them by the background's value", "not_finite")
    low, high = float(array.min()), float(array.max())
    if low == high:
        raise ReadError(path, f"every pixel is {low:g}", "take it out of the folder: it shows nothing", "constant")
    if array.dtype == np.uint8 or (array.dtype == np.uint16 and not colour):
        return array, None, ()
    if array.dtype.kind in "iu" and low >= 0 and high <= 65535 and not colour:
        return array.astype(np.uint16), None, ()
    largest, kind = (255, np.uint8) if colour else (65535, np.uint16)
    stretched = (array.astype(np.float64) - low) / (high - low) * largest
    note = f"values from {low:g} to {high:g} are stretched to {np.dtype(kind)}"
    return np.rint(stretched).astype(kind), None, (note,)


def read_label_plane(path: Path, at_most: int) -> np.ndarray:
    """Read an `.npy` of at most so many pixels as it is.

    Raises:
        ReadError: If it is not there, damaged, holds pickled objects, or is too large.
    """
    if not path.is_file():
        raise ReadError(path, "does not exist", "check the path in the recipe", "missing")
    array = read_npy_array(path)
    if array.size > 3 * at_most:
        reason = f"holds {array.size} values, more than an image of {at_most} pixels"
        raise ReadError(path, reason, "shrink it, or take it out of the folder", "too_large")
    return array
