"""PNG and JPEG files without what they say about people and devices, and whether they are whole."""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Iterator

from vissl_jointssl.preparation.decoding.guarding import decoder_errors, quiet, without_pillows_limit

_PNG_START = b"\x89PNG\r\n\x1a\n"
_PNG_KEPT = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
_JPEG_START, _JPEG_END = b"\xff\xd8", b"\xff\xd9"
_JPEG_SCAN = b"\xff\xda"
_END, _SCAN, _APP0, _APP14, _COMMENT = 0xD9, 0xDA, 0xE0, 0xEE, 0xFE
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # not a restart, nor a fill byte
_ORIENTATION = 274  # EXIF tag; 1 is upright


def strip_metadata(data: bytes, suffix: str) -> bytes | None:
    """The bytes of an image file without its metadata; the pixels are the same, not compressed again.

    A PNG keeps its critical chunks and tRNS. A JPEG keeps what its decoder needs: of the APP segments only JFIF's
    (without thumbnail) and Adobe's, which tells how colours are coded; comments go.

    Args:
        data: The whole file.
        suffix: ".png", ".jpg" or ".jpeg", in any case.

    Returns:
        The bytes, or None where they cannot be kept: the file is not what its suffix says, is damaged, or has an EXIF
        orientation other than upright, which would go with the metadata. Then the decoded array has to be stored.
    """
    suffix = suffix.lower()
    try:
        if suffix == ".png" and data.startswith(_PNG_START) and png_fault(data) is None and _is_upright(data):
            return _PNG_START + b"".join(chunk for name, chunk in _png_chunks(data) if name in _PNG_KEPT)
        if suffix in (".jpg", ".jpeg") and data.startswith(_JPEG_START) and _is_upright(data):
            return b"".join(_bare_jpeg(data))
    except ValueError:
        return None
    return None


def png_fault(data: bytes) -> str | None:
    """What is wrong with a PNG's chunks, which carry checksums that Pillow does not all compare; None if it is none."""
    if not data.startswith(_PNG_START):
        return None
    try:
        names = [name for name, _ in _png_chunks(data)]
    except ValueError as fault:
        return str(fault)
    return None if names and names[-1] == b"IEND" else "cut short"


def jpeg_fault(data: bytes) -> str | None:
    """What is wrong with the end of a JPEG, which Pillow fills with grey; None if nothing is or it is no JPEG."""
    if data.startswith(_JPEG_START) and data.rfind(_JPEG_END) <= data.rfind(_JPEG_SCAN):
        return "cut short"
    return None


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Name and bytes of each chunk up to IEND; raises ValueError where one is cut or its checksum is wrong."""
    at = len(_PNG_START)
    while at < len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        name, end = data[at + 4 : at + 8], at + 12 + length
        if end > len(data):
            raise ValueError("cut short")
        if zlib.crc32(memoryview(data)[at + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
            raise ValueError("wrong checksum")
        yield name, data[at:end]
        if name == b"IEND":
            return
        at = end


def _bare_jpeg(data: bytes) -> Iterator[bytes]:
    """The parts to keep, up to the end of the first image; raises ValueError where markers and lengths do not fit."""
    yield _JPEG_START
    at = 2
    while True:
        marker = data[at + 1] if data[at : at + 1] == b"\xff" and at + 1 < len(data) else None
        if marker == _END:
            yield _JPEG_END
            return
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        end = at + 2 + length
        if marker is None or length < 2 or end > len(data):
            raise ValueError("no segment where one must be")
        yield _bare_segment(marker, data[at:end])
        if marker == _SCAN:  # packed pixels follow, in which every 0xFF that is no marker is marked as such
            found = _MARKER.search(data, end)
            if found is None:
                raise ValueError("cut short")
            yield data[end : found.start()]
            end = found.start()
        at = end


def _bare_segment(marker: int, segment: bytes) -> bytes:
    """A segment without what names people and devices: b"" if there is nothing else."""
    if marker == _APP0 and segment[4:9] == b"JFIF\0" and len(segment) >= 16:
        return b"\xff\xe0\x00\x10" + segment[4:16] + b"\0\0"  # no thumbnail
    if marker == _APP14 and segment[4:9] == b"Adobe" and len(segment) >= 16:
        return b"\xff\xee\x00\x0e" + segment[4:16]
    return b"" if marker == _COMMENT or _APP0 <= marker <= _APP0 + 15 else segment


def _is_upright(data: bytes) -> bool:
    """Whether EXIF leaves the image as it is; raises ValueError where Pillow cannot open it."""
    from PIL import Image

    with quiet(), without_pillows_limit():
        try:
            with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as image:
                return image.getexif().get(_ORIENTATION, 1) == 1
        except decoder_errors():
            raise ValueError("no image") from None
