"""An image with its masks and boxes, as it is written."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from vissl_jointssl.manifest import IMAGE_SUFFIXES, Box
from vissl_jointssl.manifest.boxes import box_fault
from vissl_jointssl.preparation.errors import ReadError
from vissl_jointssl.preparation.pictures import read_mask, read_picture, shrink, strip_metadata
from vissl_jointssl.preparation.processing.label_maps import read_label_maps
from vissl_jointssl.preparation.processing.piece import Piece
from vissl_jointssl.preparation.recipe import Options, Source

_SLACK = 1.0  # pixels that a box may leave its image by: tools count edges from 0 or 1, or round them


def image_pieces(source: Source, root: Path, options: Options) -> Iterator[Piece]:
    """Yield the one piece of an image.

    Raises:
        ReadError: If a file is at fault, or a box is empty or leaves the image.
    """
    path = root / source.path
    picture = read_picture(path)
    height, width = picture.array.shape[:2]
    labels = read_label_maps(source, root, lambda mask: read_mask(mask, (height, width)))
    boxes = None if source.boxes is None else _inside(source.boxes, (height, width), path)
    array, original = picture.array, None
    if options.image_form == "original":
        original = _original(path, array, options)
    if original is None:
        array = _stretch(array, options.percentiles)
    if options.image_size is not None and max(height, width) > options.image_size:
        array = shrink(array, options.image_size)
        if labels is not None:
            planes = labels if labels.ndim == 3 else labels[None]
            small = np.stack([shrink(plane, options.image_size, labels=True) for plane in planes])
            labels = small if labels.ndim == 3 else small[0]
        if boxes is not None:
            boxes = _scaled(boxes, array.shape[0] / height, array.shape[1] / width)
    if options.stored_type == "uint8" and array.dtype == np.uint16:
        array = np.rint(array / 257).astype(np.uint8)  # 65535 / 255
    yield Piece(
        suffix="",
        array=array,
        labels=labels,
        label=source.label,
        modality=source.modality or picture.modality or "OT",  # OT: DICOM's word for other
        spacing=None,
        boxes=boxes,
        original=original,
        notes=picture.notes,
    )


def _stretch(image: np.ndarray, percentiles: tuple[float, float]) -> np.ndarray:
    """Grey images by their own percentiles to the full range of their type: many use a fraction of it. Colour stays."""
    if image.ndim == 3:
        return image
    low, high = np.percentile(image, percentiles)
    if high <= low:
        low, high = image.min(), image.max()
    largest = np.iinfo(image.dtype).max
    unit = np.clip((image.astype(np.float32) - low) / (high - low), 0, 1)
    return np.rint(unit * largest).astype(image.dtype)


def _inside(boxes: Sequence[Box], shape: tuple[int, int], path: Path) -> tuple[Box, ...]:
    """The boxes, clipped to the image where they leave it by a pixel."""
    kept = []
    for number, box in enumerate(boxes):
        left, top = max(box.left, 0.0), max(box.top, 0.0)
        right, bottom = min(box.right, float(shape[1])), min(box.bottom, float(shape[0]))
        moved = (left - box.left, top - box.top, box.right - right, box.bottom - bottom)
        clipped = Box(box.label, left, top, right, bottom) if max(moved) <= _SLACK else box
        fault = box_fault(clipped, shape)
        if fault is not None:
            edges = (box.left, box.top, box.right, box.bottom)
            reason = f"its box {number}, {edges}, {fault}"
            raise ReadError(path, reason, "boxes are (left, top, right, bottom) in the image's own pixels", "boxes")
        kept.append(clipped)
    return tuple(kept)


def _scaled(boxes: Sequence[Box], vertical: float, horizontal: float) -> tuple[Box, ...]:
    return tuple(
        Box(box.label, box.left * horizontal, box.top * vertical, box.right * horizontal, box.bottom * vertical)
        for box in boxes
    )


def _original(path: Path, array: np.ndarray, options: Options) -> tuple[str, bytes] | None:
    """The file's own bytes without its metadata, where they alone give the same picture."""
    from PIL import Image

    suffix = path.suffix.lower()
    too_large = options.image_size is not None and max(array.shape[:2]) > options.image_size
    if suffix not in IMAGE_SUFFIXES or array.dtype != np.uint8 or too_large:
        return None
    data = strip_metadata(path.read_bytes(), suffix)
    if data is None:
        return None
    with Image.open(io.BytesIO(data)) as image:
        plain = np.array(image)  # as the manifest decodes it: a palette or an alpha channel would show
    same = plain.shape == array.shape and plain.dtype == array.dtype and np.array_equal(plain, array)
    return (suffix, data) if same else None
