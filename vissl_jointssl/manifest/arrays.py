"""Opening the arrays that a manifest names, and nothing that lies elsewhere."""

from __future__ import annotations

import math
import struct
import warnings
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vissl_jointssl.manifest.entry import IMAGE_SUFFIXES
from vissl_jointssl.manifest.files import FileFault, confined, size_of
from vissl_jointssl.manifest.npy import map_npy

_FORMATS = ("PNG", "JPEG")  # a .png may hold any format; some of Pillow's start other programs


def open_array(root: Path, relative: str, shapes: Sequence[tuple[int, ...]]) -> np.ndarray:
    """An array, read-only and memory-mapped where it is `.npy`.

    Args:
        root: The manifest's folder.
        relative: The file, from there.
        shapes: That it may have; an image of another height and width is not unpacked.

    Raises:
        FileFault: If the file is missing, lies elsewhere, or cannot be read.
    """
    path = confined(root, relative)
    try:
        return _decode_image(path, shapes) if path.suffix.lower() in IMAGE_SUFFIXES else map_npy(path)
    except FileNotFoundError:
        raise FileFault("does not exist") from None
    except OSError as error:
        raise FileFault(f"cannot be read ({error.strerror or type(error).__name__})") from None


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


def _decode_image(path: Path, shapes: Sequence[tuple[int, ...]]) -> np.ndarray:
    from PIL import Image

    size = size_of(path)
    try:
        with warnings.catch_warnings():
            # Pillow warns of images above 89 million pixels and refuses twice as many; one limit is enough.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path, formats=_FORMATS) as image:
                if (image.height, image.width) not in [shape[:2] for shape in shapes]:
                    said = " x ".join(map(str, shapes[0]))
                    raise FileFault(f"has {image.height} x {image.width} pixels, its row says {said}")
                return np.array(image)
    except (FileNotFoundError, FileFault):
        raise
    except Image.DecompressionBombError:
        raise FileFault(f"cannot be read ({size} bytes that unpack to more pixels than an image has)") from None
    except (OSError, ValueError, SyntaxError, EOFError, TypeError, LookupError, struct.error, zlib.error) as error:
        raise FileFault(f"cannot be read ({size} bytes; no whole PNG or JPEG: {type(error).__name__})") from None
