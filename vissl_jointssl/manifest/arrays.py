"""Opening the arrays that a manifest names, and nothing that lies elsewhere."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from vissl_jointssl.manifest.entry import IMAGE_SUFFIXES


class ArrayFault(ValueError):
    """An array file that cannot be used; the message goes on from the file's name."""


def confined(root: Path, relative: str) -> Path:
    """The path of a file of the folder.

    Raises:
        ArrayFault: If links lead out of it.
    """
    path = root / relative
    if not path.resolve().is_relative_to(root.resolve()):
        raise ArrayFault("is a link that leaves the manifest's folder")
    return path


def open_array(root: Path, relative: str) -> np.ndarray:
    """An array, read-only and memory-mapped where it is `.npy`.

    Raises:
        ArrayFault: If the file is missing, lies elsewhere, or cannot be read.
    """
    path = confined(root, relative)
    try:
        if path.suffix.lower() in IMAGE_SUFFIXES:
            return _decode_image(path)
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise ArrayFault("does not exist") from None
    except (ValueError, OSError, EOFError, SyntaxError, OverflowError) as error:
        size = path.stat().st_size if path.is_file() else 0
        reason = str(error).splitlines()[0] if str(error) else "empty"
        raise ArrayFault(f"cannot be read ({size} bytes; {reason})") from None


def as_unit_interval(array: np.ndarray) -> np.ndarray:
    """Stored values as float32 in [0, 1]: integers divided by the largest of their type, floats as they are."""
    values = np.asarray(array)
    if values.dtype.kind in "iu":
        return values.astype(np.float32) / np.float32(np.iinfo(values.dtype).max)
    return values.astype(np.float32)


def float_faults(array: np.ndarray) -> list[str]:
    """What is wrong with floating-point values, which have to lie in [0, 1]."""
    low, high = float(array.min()), float(array.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        return ["holds NaN or infinite values"]
    if low < 0 or high > 1:
        return [f"holds values in [{low:g}, {high:g}], floats must lie in [0, 1]"]
    return []


def _decode_image(path: Path) -> np.ndarray:
    from PIL import Image

    try:
        with Image.open(path) as image:
            return np.array(image)
    except Image.DecompressionBombError as error:
        raise ValueError(str(error)) from None
