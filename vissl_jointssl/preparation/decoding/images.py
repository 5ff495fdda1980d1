"""Single 2D images (X-rays, photographs of slices) from PNG and JPEG."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vissl_jointssl.preparation.errors import ReadError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")


def read_image(path: Path) -> np.ndarray:
    """Decode an image.

    Returns:
        `(H, W)` uint8 or uint16 for grey, `(H, W, 3)` uint8 for colour; an alpha channel is dropped.

    Raises:
        ReadError: If the file cannot be decoded to its last byte, or shows one value only.
    """
    from PIL import Image

    try:
        with Image.open(path) as image:
            grey = image.mode in ("1", "L", "LA", "I", "F") or image.mode.startswith("I;")
            deep = image.mode in ("I", "F") or image.mode.startswith("I;")
            if deep:
                array = np.array(image)
            else:
                array = np.array(image.convert("L" if grey else "RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = f"cannot be read as an image ({error or type(error).__name__})"
        raise ReadError(path, reason, "copy it again from its source, or take it out of the folder") from None
    if array.dtype.kind not in "u":
        low, high = array.min(), array.max()
        if not (low >= 0 and high <= 65535):
            raise ReadError(path, f"holds values from {low} to {high}", "save it as grey with 8 or 16 bits")
        array = array.astype(np.uint16)
    if array.min() == array.max():
        raise ReadError(path, f"every pixel is {array.flat[0]}", "take it out of the folder: it shows nothing")
    return array
