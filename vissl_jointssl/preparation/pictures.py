"""Single 2D images (X-rays, photographs, slices) and their masks from any 2D format."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vissl_jointssl.preparation.decoding.dicom_header import is_dicom
from vissl_jointssl.preparation.decoding.dicom_xray import read_dicom_image, read_dicom_labels
from vissl_jointssl.preparation.decoding.image_metadata import strip_metadata
from vissl_jointssl.preparation.decoding.images import IMAGE_SUFFIXES, MAX_PIXELS, read_image, read_label_image
from vissl_jointssl.preparation.decoding.raw_images import is_jsrt, read_jsrt, read_label_plane, read_plane
from vissl_jointssl.preparation.errors import ReadError

__all__ = ["Picture", "read_mask", "read_picture", "shrink", "strip_metadata"]

_LARGEST_LABEL = 65535
_CONVERT = f"convert it to one of {', '.join(IMAGE_SUFFIXES)}, .npy or DICOM"


@dataclass(frozen=True)
class Picture:
    """An image in memory.

    Attributes:
        array: `(H, W)` uint8 or uint16 for grey, `(H, W, 3)` uint8 for colour; larger is brighter.
        modality: "XR", ... where the file says it (DICOM), or None.
        notes: As in `Scan`.
    """

    array: np.ndarray
    modality: str | None = None
    notes: tuple[str, ...] = ()


def read_picture(path: Path) -> Picture:
    """Decode an image: PNG, JPEG, TIFF, GIF, BMP, DICOM of one frame, a 2D `.npy`, or a raw X-ray of JSRT.

    DICOM is known by its content, the others by their suffix.

    Raises:
        ReadError: If the file is not there, of another kind, too large, damaged, or shows one value only.
    """
    suffix = path.suffix.lower()
    if suffix == ".npy":
        return Picture(*read_plane(path, MAX_PIXELS))
    if is_jsrt(path):
        return Picture(read_jsrt(path), "XR")
    if suffix in IMAGE_SUFFIXES:
        return Picture(read_image(path))
    return Picture(*read_dicom_image(_some_dicom(path), MAX_PIXELS))


def read_mask(path: Path, shape: tuple[int, int]) -> np.ndarray:
    """Read a label map of an image, or one plane of it.

    A mask of another size is brought to the image's by nearest neighbour where both sides have the same ratio, as with
    JSRT, whose masks are 1024 x 1024 and whose images are 2048 x 2048.

    Args:
        path: PNG, TIFF, GIF or BMP, whose numbers or palette indices are labels, a 2D `.npy`, or DICOM of one frame.
        shape: `(H, W)` of the image.

    Returns:
        `(H, W)` int32.

    Raises:
        ReadError: As in `read_picture`; or if a value is no whole number from 0 to 65535, or the shape does not fit.
    """
    suffix = path.suffix.lower()
    if suffix == ".npy":
        labels = read_label_plane(path, MAX_PIXELS)
    elif suffix in IMAGE_SUFFIXES:
        labels = read_label_image(path)
    else:
        labels = read_dicom_labels(_some_dicom(path), MAX_PIXELS)
    if labels.ndim != 2:
        raise ReadError(
            path, f"is not one 2D map: it has shape {labels.shape}", "give one number per pixel", "dimensions"
        )
    low, high = labels.min(), labels.max()
    whole = labels.dtype.kind in "iub" or np.array_equal(labels, np.rint(labels))
    if not whole or low < 0 or high > _LARGEST_LABEL:
        reason = f"holds values from {low:g} to {high:g}, not whole numbers from 0 to {_LARGEST_LABEL}"
        raise ReadError(path, reason, "give a map of label numbers, not of probabilities", "label_values")
    (height, width), (rows, columns) = shape, labels.shape
    if height * columns != width * rows:
        reason = f"has {rows} x {columns} pixels, its image {height} x {width}"
        raise ReadError(path, reason, "give a mask of the same picture, not cut or squeezed", "label_grid")
    return _nearest(labels, shape).astype(np.int32)


def shrink(array: np.ndarray, longest_side: int, labels: bool = False) -> np.ndarray:
    """Make an image smaller until its longest side has at most so many pixels; one that is smaller stays as it is.

    Args:
        array: `(H, W)` or `(H, W, 3)`.
        longest_side: In pixels, from 1.
        labels: Take the nearest pixel. Else every new pixel is the mean of the area that it covers, of all 16 bits.

    Returns:
        Of the array's type.
    """
    if longest_side < 1:
        raise ValueError(f"longest_side is {longest_side}, expected pixels from 1")
    height, width = array.shape[:2]
    if max(height, width) <= longest_side:
        return array
    scale = longest_side / max(height, width)
    shape = (max(round(height * scale), 1), max(round(width * scale), 1))
    return _nearest(array, shape) if labels else _area_means(array, shape)


def _nearest(array: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    if array.shape[:2] == shape:
        return array
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(int) for new, old in zip(shape, array.shape[:2], strict=True)
    )
    return array[np.ix_(rows, columns)]


def _area_means(array: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    from PIL import Image

    planes = array[..., None] if array.ndim == 2 else array
    small = [  # in float32, which holds 16 bits exactly
        np.array(Image.fromarray(plane.astype(np.float32)).resize(shape[::-1], Image.Resampling.BOX))
        for plane in np.moveaxis(planes, -1, 0)
    ]
    means = np.rint(np.stack(small, axis=-1)).astype(array.dtype)
    return means[..., 0] if array.ndim == 2 else means


def _some_dicom(path: Path) -> Path:
    if path.is_file() and path.stat().st_size and not is_dicom(path):
        raise ReadError(path, "is of an unknown kind", _CONVERT, "unsupported")
    return path
