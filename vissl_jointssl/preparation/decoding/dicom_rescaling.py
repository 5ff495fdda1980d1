"""Stored DICOM values to those of the modality (HU, counts, Gy), each slice by its own slope and intercept."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import groupby

import numpy as np

from vissl_jointssl.preparation.decoding.dicom_header import SliceHeader
from vissl_jointssl.preparation.decoding.dicom_pixels import read_stored
from vissl_jointssl.preparation.decoding.limits import COPY_AGAIN
from vissl_jointssl.preparation.errors import ReadError

_INTEGERS = ("int16", "uint16", "int32")


def rescaled_volume(headers: Sequence[SliceHeader], at_most: int) -> np.ndarray:
    """Decode slices and rescale each by itself, as PET needs, whose slope changes from slice to slice.

    Args:
        headers: Slices of one size, in order.
        at_most: Pixels that one file may claim to hold.

    Returns:
        `(i, j, k)`: integers where every slope and intercept is whole, float32 else.

    Raises:
        ReadError: If a file cannot be decoded, or its slope or intercept is of no use.
    """
    for header in headers:
        _check_rescaling(header)
    rows, columns = headers[0].size
    volume = np.empty((len(headers), rows, columns), _type_for(headers))
    for index, stored in enumerate(_stored_planes(headers, at_most)):
        header = headers[index]
        if stored.shape != (rows, columns):
            raise ReadError(header.path, f"has {stored.shape} pixels, its series {(rows, columns)}", COPY_AGAIN)
        if stored.dtype.kind == "f" and volume.dtype.kind != "f":
            volume = volume.astype(np.float32)
        if (header.slope, header.intercept) == (1, 0):
            volume[index] = stored
        else:
            kind = np.float64 if volume.dtype.kind == "f" else np.int64
            volume[index] = stored * kind(header.slope) + kind(header.intercept)
    if volume.dtype == np.int32 and volume.min() >= -(2**15) and volume.max() < 2**15:
        volume = volume.astype(np.int16)  # 16 stored bits may be more than the values use
    return volume.transpose(2, 1, 0)


def _stored_planes(headers: Sequence[SliceHeader], at_most: int) -> Iterator[np.ndarray]:
    for path, slices in groupby(headers, key=lambda header: header.path):
        stored, _ = read_stored(path, at_most)
        for header in slices:
            yield stored[header.frame]


def _check_rescaling(header: SliceHeader) -> None:
    if header.lookup:
        raise ReadError(header.path, "rescales by a table", "convert it with a DICOM tool", "unsupported")
    if not (math.isfinite(header.slope) and math.isfinite(header.intercept) and header.slope != 0):
        reason = "has a rescale slope or intercept that is no usable number"
        raise ReadError(header.path, reason, "take the series out of the folder, or export it again")


def _type_for(headers: Sequence[SliceHeader]) -> np.dtype:
    ends = []
    for header in headers:
        if not (header.slope.is_integer() and header.intercept.is_integer()):
            return np.dtype(np.float32)
        ends += [end * header.slope + header.intercept for end in header.stored_range]
    for name in _INTEGERS:
        if np.iinfo(name).min <= min(ends) and max(ends) <= np.iinfo(name).max:
            return np.dtype(name)
    return np.dtype(np.float32)
