"""Single 2D images (X-rays, photographs of slices) from PNG, JPEG, TIFF, GIF and BMP, by Pillow."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from vissl_jointssl.preparation.decoding.guarding import guarded, without_pillows_limit
from vissl_jointssl.preparation.decoding.image_metadata import jpeg_fault, png_fault
from vissl_jointssl.preparation.decoding.limits import COPY_AGAIN
from vissl_jointssl.preparation.errors import ReadError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".gif", ".bmp")
MAX_PIXELS = 2**28  # 16,384 x 16,384: four times the largest mammogram along each side

_FORMATS = ("PNG", "JPEG", "TIFF", "GIF", "BMP")
_PHOTOMETRIC, _MIN_IS_WHITE = 262, 0  # of TIFF
_LARGEST = 65535


def read_image(path: Path) -> np.ndarray:
    """Decode an image as it is meant to be seen: turned as its EXIF tag says, palettes and alpha channels resolved.

    Returns:
        `(H, W)` uint8 or uint16 for grey, also where three equal channels show it; `(H, W, 3)` uint8 for colour, of
        which 16 bits are cut to 8.

    Raises:
        ReadError: If the file cannot be decoded to its last byte, claims more than `MAX_PIXELS`, holds several pages
            or frames, or shows one value only.
    """
    from PIL import ImageOps

    with _opened(path) as image:
        # Pillow turns 8 bits round where 0 is white, and leaves 16 as they are.
        inverted = _is_deep(image) and image.format == "TIFF" and image.tag_v2.get(_PHOTOMETRIC) == _MIN_IS_WHITE
        image = ImageOps.exif_transpose(image)
        if _is_deep(image):
            array = _sixteen_bits(path, np.array(image))
            array = _LARGEST - array if inverted else array
        else:
            grey = image.mode in ("1", "L", "LA", "La")
            array = np.array(image.convert("L" if grey else "RGB"))
    if array.ndim == 3 and (array == array[..., :1]).all():
        array = np.ascontiguousarray(array[..., 0])
    if array.min() == array.max():
        reason = f"every pixel is {array.flat[0]}"
        raise ReadError(path, reason, "take it out of the folder: it shows nothing", "constant")
    return array


def read_label_image(path: Path) -> np.ndarray:
    """Decode a map of label numbers, or one plane of them.

    The numbers of a palette image are its indices, not its colours; they are not turned by EXIF.

    Returns:
        `(H, W)` of unsigned integers.

    Raises:
        ReadError: As in `read_image`, but for a single value, which is no fault; or if the file is a JPEG, whose
            values are not exact, or shows colours.
    """
    with _opened(path) as image:
        if image.format == "JPEG":
            reason = "is a JPEG, which does not keep label numbers exactly"
            raise ReadError(path, reason, "give the map as PNG, or as the tool that drew it saved it", "label_values")
        if image.mode in ("1", "L", "P"):
            return np.array(image).astype(np.uint8)
        if _is_deep(image):
            return _sixteen_bits(path, np.array(image))
        if image.mode in ("LA", "PA"):
            return np.array(image)[..., 0]
        array = np.array(image.convert("RGB"))
    if not (array == array[..., :1]).all():
        raise ReadError(path, "shows colours, not label numbers", "give one number per pixel", "label_values")
    return np.ascontiguousarray(array[..., 0])


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The image, decoded; what Pillow raises in the block becomes a `ReadError`."""
    from PIL import Image

    with guarded(path, "cannot be read as an image"), without_pillows_limit():
        data = path.read_bytes()
        if not data:
            raise ReadError(path, "is empty (0 bytes)", COPY_AGAIN, "empty")
        fault = png_fault(data) or jpeg_fault(data)
        if fault:
            raise ReadError(path, f"cannot be read as an image ({fault})", COPY_AGAIN)
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                reason = f"claims {image.width} x {image.height} pixels, more than {MAX_PIXELS}"
                raise ReadError(path, reason, "shrink it, or take it out of the folder", "too_large")
            _refuse_pages(path, image)
            image.load()
            yield image


def _refuse_pages(path: Path, image: Any) -> None:
    if image.format == "MPO":  # a JPEG with a second view for stereo screens; the first one is the image
        return
    try:
        image.seek(1)
    except EOFError:
        image.seek(0)
        return
    raise ReadError(path, "holds several pages or frames", "save each one as a file of its own", "dimensions")


def _is_deep(image: Any) -> bool:
    return image.mode in ("I", "F") or image.mode.startswith("I;")


def _sixteen_bits(path: Path, array: np.ndarray) -> np.ndarray:
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ReadError(path, "holds NaN or infinite pixels", "save it as grey with 8 or 16 bits", "not_finite")
    low, high = array.min(), array.max()
    if low < 0 or high > _LARGEST or (array.dtype.kind == "f" and (array != np.rint(array)).any()):
        reason = f"holds values from {low:g} to {high:g}, not whole numbers from 0 to {_LARGEST}"
        raise ReadError(path, reason, "save it as grey with 8 or 16 bits", "unsupported")
    return array.astype(np.uint16)
