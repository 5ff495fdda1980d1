"""The pixels of a DICOM file: stored values by pydicom, by GDCM what pydicom has no decoder for.

pydicom comes first because it gives the stored values and leaves the rescaling to us: GDCM rescales on its own, by one
slope per file, and prints header text when something is wrong. GDCM (inside SimpleITK) knows lossless JPEG, JPEG-LS
and JPEG of 12 bits, and gets those frames in a file that holds nothing but them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from vissl_jointssl.preparation.decoding.dicom_gdcm import decode_by_gdcm, stream_size
from vissl_jointssl.preparation.decoding.dicom_header import read_dataset, whole_number
from vissl_jointssl.preparation.decoding.guarding import guarded, without_pillows_limit
from vissl_jointssl.preparation.decoding.limits import COPY_AGAIN
from vissl_jointssl.preparation.errors import ReadError

_PIXEL_TAGS = (
    "SOPClassUID Rows Columns NumberOfFrames SamplesPerPixel PhotometricInterpretation PlanarConfiguration "
    "BitsAllocated BitsStored HighBit PixelRepresentation PixelData FloatPixelData DoubleFloatPixelData "
    "ExtendedOffsetTable ExtendedOffsetTableLengths RedPaletteColorLookupTableDescriptor "
    "GreenPaletteColorLookupTableDescriptor BluePaletteColorLookupTableDescriptor "
    "RedPaletteColorLookupTableData GreenPaletteColorLookupTableData BluePaletteColorLookupTableData"
)
_REWRITE = "rewrite it with a DICOM tool"
_PIXEL_ELEMENTS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")


def read_stored(path: Path, at_most: int, more_tags: tuple[str, ...] = ()) -> tuple[np.ndarray, Any]:
    """Decode a file's frames.

    Args:
        path: A DICOM file.
        at_most: Pixels that it may claim to hold.
        more_tags: To read along.

    Returns:
        `(n, H, W)` or in colour `(n, H, W, 3)`, as stored but RGB; and the data set, to be looked at in `guarded`.

    Raises:
        ReadError: If there are no pixels, too many, fewer than claimed, or they cannot be decoded.
    """
    with guarded(path, "its pixels cannot be decoded"):
        header = read_dataset(path, (*_PIXEL_TAGS.split(), *more_tags), pixels=True)
        shape = _claimed_shape(path, header, at_most)
        syntax = header.file_meta.get("TransferSyntaxUID")
        if syntax is None:
            raise ReadError(path, "does not say how its pixels are coded", _REWRITE, "unsupported")
        if not syntax.is_compressed:
            _check_length(path, header, shape)
        array = _decode(path, header, shape)
        if array.size != np.prod(shape):
            raise ReadError(path, "holds fewer pixels than its header claims", COPY_AGAIN)
        return array.reshape(shape), header


def _claimed_shape(path: Path, header: Any, at_most: int) -> tuple[int, ...]:
    if "Rows" not in header and "SOPClassUID" in header:
        raise ReadError(path, "holds no image", "take it out of the folder", "unsupported")
    # Where packed pixels have no end, pydicom drops the whole data set.
    if not any(header.get(element) for element in _PIXEL_ELEMENTS):
        raise ReadError(path, "holds no pixels, or is cut short within them", COPY_AGAIN)
    rows, columns = whole_number(header, "Rows"), whole_number(header, "Columns")
    frames, samples = whole_number(header, "NumberOfFrames", 1), whole_number(header, "SamplesPerPixel", 1)
    if min(rows, columns, frames) < 1 or samples not in (1, 3):
        reason = f"claims {frames} frames of {rows} x {columns} pixels with {samples} values each"
        raise ReadError(path, reason, COPY_AGAIN, "dimensions")
    if rows * columns * frames > at_most:
        reason = f"claims {frames} frames of {rows} x {columns} pixels, more than {at_most}"
        raise ReadError(path, reason, "cut it to the part that is needed", "too_large")
    if "HighBit" in header and whole_number(header, "HighBit") != whole_number(header, "BitsStored") - 1:
        raise ReadError(path, "stores its values in other than the lowest bits", _REWRITE, "unsupported")
    palette = header.get("PhotometricInterpretation") == "PALETTE COLOR"
    return (frames, rows, columns, 3) if samples == 3 or palette else (frames, rows, columns)


def _check_length(path: Path, header: Any, shape: tuple[int, ...]) -> None:
    samples = whole_number(header, "SamplesPerPixel", 1)
    bits = int(np.prod(shape[:3])) * samples * whole_number(header, "BitsAllocated")
    if header.get("PhotometricInterpretation") == "YBR_FULL_422":
        bits = bits * 2 // 3  # two of three values are shared by two pixels
    held = max(len(header.get(element) or b"") for element in _PIXEL_ELEMENTS)
    if held < bits // 8:
        raise ReadError(path, f"is cut short: {held} of {bits // 8} bytes of pixels are there", COPY_AGAIN)


def _decode(path: Path, header: Any, shape: tuple[int, ...]) -> np.ndarray:
    from pydicom.pixels import apply_color_lut, get_decoder

    syntax = header.file_meta.TransferSyntaxUID
    if syntax.is_compressed:
        _check_streams(path, header, shape)
    try:
        with without_pillows_limit():
            array, properties = get_decoder(syntax).as_array(header)
    except (NotImplementedError, RuntimeError):  # no decoder, or one that does not know this kind
        return decode_by_gdcm(header)
    if properties["photometric_interpretation"] == "PALETTE COLOR":
        array = apply_color_lut(array, header)[..., :3]
    return array


def _check_streams(path: Path, header: Any, shape: tuple[int, ...]) -> None:
    """Refuse frames whose own size is not the header's, before a decoder makes room for them."""
    from pydicom.encaps import generate_frames

    for frame in generate_frames(header.PixelData, number_of_frames=shape[0]):
        size = stream_size(frame)
        if size is not None and size != shape[1:3]:
            reason = f"holds a frame of {size[0]} x {size[1]} pixels, its header says {shape[1]} x {shape[2]}"
            raise ReadError(path, reason, COPY_AGAIN)
