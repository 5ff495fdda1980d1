"""What the header of a DICOM file says about its slices, and no text of it.

Only the tags named here are looked at. Whatever pydicom raises may quote a value, so that the kind of error is all
that is passed on; UIDs leave as hashes, codes only where the standard knows them.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vissl_jointssl.preparation.decoding.guarding import decoder_errors, guarded
from vissl_jointssl.preparation.decoding.limits import COPY_AGAIN, MAX_BYTES
from vissl_jointssl.preparation.errors import ReadError

_MODALITIES = (
    "AR BI BMD CR CT DG DX ECG EPS ES FID GM HC HD IO IVOCT IVUS KO LS M3D MG MR NM OAM OCT OP OPM OPT OPTBSV "
    "OPTENF OPV OSS OT PA POS PR PT PX REG RESP RF RG RTDOSE RTIMAGE RTPLAN RTRECORD RTSTRUCT RWV SC SEG SM "
    "SMR SR SRF STAIN TG US VA XA XC XR"
)
_SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
_MAGIC_AT, _MAGIC = 128, b"DICM"
_DEFLATED = b"1.2.840.10008.1.2.1.99"
_META_AT_MOST, _PIECE = 4096, 2**20  # bytes
_SLICE_TAGS = (
    "SOPClassUID SeriesInstanceUID Modality ImageType Rows Columns NumberOfFrames SamplesPerPixel "
    "BitsAllocated BitsStored PixelRepresentation ImagePositionPatient ImageOrientationPatient PixelSpacing "
    "GantryDetectorTilt RescaleSlope RescaleIntercept ModalityLUTSequence SpacingBetweenSlices "
    "GridFrameOffsetVector DoseGridScaling DetectorInformationSequence SharedFunctionalGroupsSequence "
    "PerFrameFunctionalGroupsSequence"
)


@dataclass(frozen=True)
class SliceHeader:
    """One slice: a file, or a frame of a multi-frame file.

    Attributes:
        path: The file.
        frame: From 0; 0 in a file of one slice.
        series: Hash of the series' UID, "" where there is none.
        sop_class: UID of the kind of object, as the standard lists it, or "".
        modality: As the standard abbreviates it, or None.
        size: (rows, columns), 0 where absent.
        frames: Of the file.
        samples: Values per pixel, 1 for grey.
        position: Of the centre of the first pixel, LPS mm, or None.
        axes: Direction of growing column and growing row, LPS, or None.
        spacing: (between rows, between columns) in mm, or None.
        slope: Stored values times it, plus the intercept, are the modality's; NaN for text that is no number.
        intercept: As the slope.
        stored_range: Smallest and largest value that the stored bits can have.
        localizer: Whether it is a scout view, which other slices are planned on.
        mosaic: Whether slices lie side by side in one picture, as Siemens stores functional MR.
        tilt: Of the gantry in degrees, by the header.
        segmentation: Whether its frames are segments, not slices.
        lookup: Whether a table turns stored values to the modality's, instead of slope and intercept.
    """

    path: Path
    frame: int = 0
    series: str = ""
    sop_class: str = ""
    modality: str | None = None
    size: tuple[int, int] = (0, 0)
    frames: int = 1
    samples: int = 1
    position: tuple[float, ...] | None = None
    axes: tuple[float, ...] | None = None
    spacing: tuple[float, ...] | None = None
    slope: float = 1.0
    intercept: float = 0.0
    stored_range: tuple[int, int] = (0, 65535)
    localizer: bool = False
    mosaic: bool = False
    tilt: float = 0.0
    segmentation: bool = False
    lookup: bool = False


def is_dicom(path: Path) -> bool:
    """Whether a file carries DICOM's magic word; the name says nothing, most scanners write no suffix."""
    try:
        with path.open("rb") as file:
            file.seek(_MAGIC_AT)
            return file.read(len(_MAGIC)) == _MAGIC
    except OSError:
        return False


def read_dataset(path: Path, tags: Sequence[str], *, pixels: bool = False) -> Any:
    """The named tags of a file; call it, and look at what it gives, inside `guarded`.

    Raises:
        ReadError: If the file is empty, is not DICOM, or unpacks to more than any scan holds.
    """
    import pydicom

    if path.stat().st_size == 0:
        raise ReadError(path, "is empty (0 bytes)", COPY_AGAIN, "empty")
    if not is_dicom(path):
        raise ReadError(
            path, "is not DICOM, or a part of it without the preamble: byte 128 is not followed by DICM", COPY_AGAIN
        )
    _refuse_deflated_bomb(path)
    return pydicom.dcmread(path, stop_before_pixels=not pixels, specific_tags=list(tags))


def read_slices(path: Path) -> list[SliceHeader]:
    """The header of each slice of a file: one, or as many as it has frames.

    A file without slices (a report, a plan) gives one header of size (0, 0), a segmentation one header for all.

    Raises:
        ReadError: If the header cannot be read.
    """
    from vissl_jointssl.preparation.decoding.dicom_frames import frame_headers  # which imports this file

    with guarded(path, "has a damaged DICOM header"):
        header = read_dataset(path, _SLICE_TAGS.split())
        whole = _whole_file(path, header)
        if whole.segmentation or (whole.frames == 1 and "PerFrameFunctionalGroupsSequence" not in header):
            return [whole]
        return frame_headers(header, whole)


def numbers(header: Any, keyword: str, count: int) -> tuple[float, ...] | None:
    """A tag's finite numbers, or None where it is absent, of another count, or no numbers."""
    try:
        value = header.get(keyword)
        if value is None:
            return None
        found = np.atleast_1d(np.array(value, dtype=float))
    except decoder_errors():
        return None
    return tuple(float(item) for item in found) if len(found) == count and np.isfinite(found).all() else None


def rescale(header: Any) -> tuple[float, float]:
    """Slope and intercept of a data set or functional group; NaN for one that is there and is no number."""
    found = []
    for keyword, absent in (("RescaleSlope", 1.0), ("RescaleIntercept", 0.0)):
        value = numbers(header, keyword, 1)
        found.append(value[0] if value else (float("nan") if header.get(keyword) not in (None, "") else absent))
    return found[0], found[1]


def whole_number(header: Any, keyword: str, absent: int = 0) -> int:
    """A tag's whole number, or `absent`; text that is no number counts as absent."""
    value = numbers(header, keyword, 1)
    return int(value[0]) if value else absent


def known_modality(header: Any) -> str | None:
    """The modality where it is one of the standard's; any other text might be anything."""
    modality = str(header.get("Modality") or "").strip()
    return modality if modality in _MODALITIES.split() else None


def _whole_file(path: Path, header: Any) -> SliceHeader:
    from pydicom.uid import UID_dictionary

    series = str(header.get("SeriesInstanceUID") or "")
    sop_class = str(header.get("SOPClassUID") or header.file_meta.get("MediaStorageSOPClassUID") or "")
    image_type = header.get("ImageType") or ()
    words = [str(word).upper() for word in ([image_type] if isinstance(image_type, str) else image_type)]
    slope, intercept = rescale(header)
    slope = (numbers(header, "DoseGridScaling", 1) or (slope,))[0]
    bits = min(max(whole_number(header, "BitsStored", 16), 1), 64)
    signed = whole_number(header, "PixelRepresentation") == 1
    return SliceHeader(
        path=path,
        series=hashlib.sha256(series.encode()).hexdigest()[:16] if series else "",
        sop_class=sop_class if sop_class in UID_dictionary else "",
        modality=known_modality(header),
        size=(whole_number(header, "Rows"), whole_number(header, "Columns")),
        frames=whole_number(header, "NumberOfFrames", 1),
        samples=whole_number(header, "SamplesPerPixel", 1),
        position=numbers(header, "ImagePositionPatient", 3),
        axes=numbers(header, "ImageOrientationPatient", 6),
        spacing=numbers(header, "PixelSpacing", 2),
        slope=slope,
        intercept=intercept,
        stored_range=(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1),
        localizer="LOCALIZER" in words,
        mosaic="MOSAIC" in words,
        tilt=(numbers(header, "GantryDetectorTilt", 1) or (0.0,))[0],
        segmentation=sop_class == _SEGMENTATION or known_modality(header) == "SEG",
        lookup="ModalityLUTSequence" in header,
    )


def _refuse_deflated_bomb(path: Path) -> None:
    """Unpack a deflated data set once in small pieces and stop where it gets too large; pydicom unpacks it at once."""
    with path.open("rb") as file:
        head = file.read(_META_AT_MOST)
        if _DEFLATED not in head:
            return
        file.seek(_end_of_meta(head))
        unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
        unpacked = 0
        # Files are padded to an even length; zlib keeps that byte as input that it never takes.
        while not unpacker.eof and (piece := unpacker.unconsumed_tail or file.read(_PIECE)):
            unpacked += len(unpacker.decompress(piece, _PIECE))
            if unpacked > MAX_BYTES:
                raise ReadError(path, f"unpacks to more than {MAX_BYTES} bytes", COPY_AGAIN, "too_large")


def _end_of_meta(head: bytes) -> int:
    """Where the elements of group 2 end, which are always explicit little endian and never deflated."""
    at = _MAGIC_AT + len(_MAGIC)
    while head[at : at + 2] == b"\x02\x00":
        if head[at + 4 : at + 6] in (b"OB", b"UN", b"UT", b"OW", b"SQ"):
            at += 12 + int.from_bytes(head[at + 8 : at + 12], "little")
        else:
            at += 8 + int.from_bytes(head[at + 6 : at + 8], "little")
    return at
