"""Compressed DICOM frames by GDCM, which SimpleITK brings, and the sizes that compressed frames claim."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"  # a kind of object whose values GDCM does not rescale
_COPIED = (
    "Rows Columns SamplesPerPixel PhotometricInterpretation PlanarConfiguration BitsAllocated BitsStored "
    "HighBit PixelRepresentation"
)
_J2K_START = b"\xff\x4f\xff\x51"
_JP2_START = b"\x00\x00\x00\x0cjP  "
_JPEG_START = b"\xff\xd8"
# Start-of-frame markers of JPEG (0xC0 to 0xCF without the three that mean something else) and of JPEG-LS (0xF7).
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC} | {0xF7}


def decode_by_gdcm(header: Any) -> np.ndarray:
    """Stored values of every frame, `(n, H, W)` or `(n, H, W, 3)`.

    GDCM reads files only. It gets each frame in one of its own that has no other tag: nothing of the patient, no
    rescaling.

    Args:
        header: Data set with pixels.

    Raises:
        RuntimeError: If GDCM cannot decode a frame; its text says nothing of the header.
    """
    import SimpleITK
    from pydicom.encaps import generate_frames

    count = int(header.get("NumberOfFrames") or 1)
    planes = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "frame.dcm"
        for frame in generate_frames(header.PixelData, number_of_frames=count):
            _bare(header, frame).save_as(path, enforce_file_format=True)
            image = SimpleITK.ReadImage(str(path), imageIO="GDCMImageIO")
            planes.append(SimpleITK.GetArrayFromImage(image)[0])
    return np.stack(planes)


def stream_size(frame: bytes) -> tuple[int, int] | None:
    """(rows, columns) that a JPEG, JPEG-LS or JPEG 2000 stream claims, or None where it is no such stream."""
    if frame[:12].startswith(_JP2_START):
        frame = frame[max(frame.find(_J2K_START), 0) :]
    if frame.startswith(_J2K_START):
        right, down, left, top = (int.from_bytes(frame[at : at + 4], "big") for at in (8, 12, 16, 20))
        return down - top, right - left
    at = 2 if frame.startswith(_JPEG_START) else len(frame)
    while at + 9 <= len(frame) and frame[at] == 0xFF:
        marker = frame[at + 1]
        if marker in _JPEG_FRAMES:
            return int.from_bytes(frame[at + 5 : at + 7], "big"), int.from_bytes(frame[at + 7 : at + 9], "big")
        at += 1 if marker == 0xFF else 2 + int.from_bytes(frame[at + 2 : at + 4], "big")
    return None


def _bare(header: Any, frame: bytes) -> Any:
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.encaps import encapsulate
    from pydicom.uid import UID, generate_uid

    bare = Dataset()
    for keyword in _COPIED.split():
        if keyword in header:
            setattr(bare, keyword, header[keyword].value)
    if bare.SamplesPerPixel == 1:
        bare.PhotometricInterpretation = "MONOCHROME2"
    bare.SOPClassUID, bare.SOPInstanceUID = _SECONDARY_CAPTURE, generate_uid()
    bare.PixelData = encapsulate([frame])
    bare["PixelData"].VR = "OB"
    bare.file_meta = FileMetaDataset()
    bare.file_meta.TransferSyntaxUID = header.file_meta.TransferSyntaxUID
    bare.file_meta.MediaStorageSOPClassUID = UID(_SECONDARY_CAPTURE)
    bare.file_meta.MediaStorageSOPInstanceUID = bare.SOPInstanceUID
    return bare
