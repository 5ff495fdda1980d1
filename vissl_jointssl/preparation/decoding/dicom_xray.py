"""A single DICOM image as a radiologist sees it: X-rays, photographs, single slices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from vissl_jointssl.preparation.decoding.dicom_groups import X_RAYS
from vissl_jointssl.preparation.decoding.dicom_header import known_modality, numbers, rescale
from vissl_jointssl.preparation.decoding.dicom_pixels import read_stored
from vissl_jointssl.preparation.decoding.guarding import guarded
from vissl_jointssl.preparation.decoding.limits import COPY_AGAIN
from vissl_jointssl.preparation.errors import ReadError

_TAGS = (
    "Modality",
    "RescaleSlope",
    "RescaleIntercept",
    "ModalityLUTSequence",
    "VOILUTSequence",
    "WindowCenter",
    "WindowWidth",
    "VOILUTFunction",
    "PixelPaddingValue",
)
_LARGEST = 65535
_LEAST_CONTRAST = 1 / 255  # of the range that a window shows: one step of a screen
_NOTHING = "take it out of the folder: it shows nothing"


def read_dicom_image(path: Path, at_most: int) -> tuple[np.ndarray, str | None, tuple[str, ...]]:
    """Decode one frame and show it as its header asks (PS3.3 C.11.1 and C.11.2, PS3.4 N.2).

    Stored values go through the modality's table or rescaling, then through the first table or window of interest; the
    result spans the whole range of 16 bits, MONOCHROME1 turned round. Without a window, or with one that shows nothing,
    the smallest and largest value become black and white. Padding is black.

    Args:
        path: A DICOM file of one frame.
        at_most: Pixels that it may claim to hold.

    Returns:
        `(H, W)` uint16, or `(H, W, 3)` uint8 in colour; the modality, "XR" for X-rays except "MG"; and notes.

    Raises:
        ReadError: If the file is damaged, holds several frames, or no image.
    """
    stored, header = _one_frame(path, at_most)
    with guarded(path, "its header cannot be used"):
        modality = known_modality(header)
        if modality in X_RAYS and modality != "MG":
            modality = "XR"
        array, notes = (_eight_bits(stored, header), ()) if stored.ndim == 3 else _shown(path, stored, header)
    if array.min() == array.max():
        raise ReadError(path, f"every pixel is {array.flat[0]}", _NOTHING, "constant")
    return array, modality, notes


def read_dicom_labels(path: Path, at_most: int) -> np.ndarray:
    """The stored numbers of one frame, `(H, W)`, for a label map.

    Raises:
        ReadError: As in `read_dicom_image`, but for a single value.
    """
    return _one_frame(path, at_most)[0]


def _one_frame(path: Path, at_most: int) -> tuple[np.ndarray, Any]:
    stored, header = read_stored(path, at_most, _TAGS)
    if len(stored) != 1:
        reason = f"holds {len(stored)} frames, not one image"
        raise ReadError(path, reason, "give the frames as files of their own", "dimensions")
    return stored[0], header


def _eight_bits(colour: np.ndarray, header: Any) -> np.ndarray:
    spare = int(header.BitsStored) - 8
    if header.PhotometricInterpretation == "PALETTE COLOR":
        spare = 8 * colour.itemsize - 8  # tables fill their type
    return (colour >> spare if spare > 0 else colour).astype(np.uint8)


def _shown(path: Path, stored: np.ndarray, header: Any) -> tuple[np.ndarray, tuple[str, ...]]:
    notes: tuple[str, ...] = ()
    padding = numbers(header, "PixelPaddingValue", 1)
    pad = None if padding is None else stored == padding[0]
    if pad is not None and (not pad.any() or pad.all()):
        pad = None
    values = _modality_values(path, stored, header)
    inside = values if pad is None else values[~pad]
    if not np.isfinite(inside).all():
        raise ReadError(path, "holds NaN or infinite pixels", COPY_AGAIN, "not_finite")
    low, high = float(inside.min()), float(inside.max())
    if low == high:
        raise ReadError(path, f"every pixel is {low:g}", _NOTHING, "constant")
    share = _of_interest(values, header)
    share = None if share is None else np.clip(share, 0, 1)
    if share is not None and np.ptp(share if pad is None else share[~pad]) < _LEAST_CONTRAST:
        share, notes = None, ("its window shows nothing, the full range is taken",)
    if share is None:
        share = np.clip((values - low) / (high - low), 0, 1)  # padding may lie outside
    if header.PhotometricInterpretation == "MONOCHROME1":
        share = 1 - share
    array = np.rint(share * _LARGEST).astype(np.uint16)
    if pad is not None:
        array[pad] = 0
    return array, notes


def _modality_values(path: Path, stored: np.ndarray, header: Any) -> np.ndarray:
    if header.get("ModalityLUTSequence"):
        return _through_table(stored, header.ModalityLUTSequence[0], header)[0]
    slope, intercept = rescale(header)
    if not (np.isfinite(slope) and np.isfinite(intercept) and slope != 0):
        raise ReadError(path, "has a rescale slope or intercept that is no usable number", COPY_AGAIN)
    return stored * slope + intercept


def _of_interest(values: np.ndarray, header: Any) -> np.ndarray | None:
    """Shares of the brightest by the first table or window, or None without one."""
    if header.get("VOILUTSequence"):
        shown, brightest = _through_table(np.rint(values), header.VOILUTSequence[0], header)
        return shown / brightest
    centre, width = _first(header, "WindowCenter"), _first(header, "WindowWidth")
    function = str(header.get("VOILUTFunction") or "LINEAR")
    if centre is None or width is None or width <= 0:
        return None
    if function == "SIGMOID":
        return 1 / (1 + np.exp(np.clip(-4 * (values - centre) / width, -700, 700)))
    if function == "LINEAR_EXACT":
        return (values - centre) / width + 0.5
    # LINEAR: a width of 1 is a threshold, and the formula's shift by half a value makes 8 bits come out even.
    if width <= 1:
        return (values > centre - 0.5).astype(float)
    return (values - (centre - 0.5)) / (width - 1) + 0.5


def _first(header: Any, keyword: str) -> float | None:
    """A finite number, the first of several, or None."""
    value = header.get(keyword)
    try:
        number = float(np.atleast_1d(np.array(value, dtype=float))[0])
    except (TypeError, ValueError, IndexError):
        return None
    return number if np.isfinite(number) else None


def _through_table(values: np.ndarray, item: Any, header: Any) -> tuple[np.ndarray, float]:
    """Look whole values up, those beyond the table at its ends; and the largest value that the table may give."""
    length, first, bits = (int(number) for number in _words(item.LUTDescriptor, header))
    if header.get("PixelRepresentation") == 1 and first > 32767:
        first -= 65536  # the descriptor's type does not say so
    table = _words(item.LUTData, header)
    if len(table) * 2 == (length or 65536):  # two entries of 8 bits in a word
        table = table.astype("<u2").view(np.uint8)
    if len(table) != (length or 65536):
        raise ValueError("a table of another length than its descriptor's")
    index = np.clip(values.astype(np.int64) - first, 0, len(table) - 1)
    return table[index].astype(float), float(max(2 ** min(bits, 16) - 1, table.max()))


def _words(value: Any, header: Any) -> np.ndarray:
    """Numbers of 16 bits, which pydicom leaves as bytes where the header does not say their type."""
    if isinstance(value, bytes):
        little = header.original_encoding[1] is not False
        return np.frombuffer(value, "<u2" if little else ">u2").astype(np.int64)
    return np.atleast_1d(np.array(value, dtype=np.int64))
