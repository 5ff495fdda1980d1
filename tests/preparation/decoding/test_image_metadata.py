from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from vissl_jointssl.preparation.decoding.image_metadata import jpeg_fault, png_fault, strip_metadata

NAME = b"PLANTEDNAME"
GREY = np.random.default_rng(0).integers(0, 200, (40, 50)).astype(np.uint8)
COLOUR = np.dstack([GREY, GREY[::-1], GREY[:, ::-1]])


def _saved(array, kind, **options):
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, kind, **options)
    return stream.getvalue()


def _pixels(data):
    with Image.open(io.BytesIO(data)) as image:
        return np.array(image)


def _exif(orientation=1):
    exif = Image.Exif()
    exif[271], exif[274] = NAME.decode(), orientation
    return exif


@pytest.mark.parametrize("array", [GREY, COLOUR, GREY.astype(np.uint16) * 300])
def test_a_png_keeps_its_pixels_and_nothing_else(array):
    text = PngImagePlugin.PngInfo()
    text.add_text("Patient", NAME.decode())
    text.add_itxt("Comment", NAME.decode(), zip=False)
    data = (
        _saved(array, "PNG", pnginfo=text, exif=_exif(), icc_profile=NAME * 9, dpi=(72, 72)) + b"after the end" + NAME
    )
    assert NAME in data
    bare = strip_metadata(data, ".PNG")
    assert NAME not in bare
    assert {bare[at : at + 4] for at in _chunk_names(bare)} <= {b"IHDR", b"IDAT", b"IEND"}
    np.testing.assert_array_equal(_pixels(bare), array)


@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"subsampling": 2, "quality": 60}, {"restart_marker_rows": 1}]
)
@pytest.mark.parametrize("array", [GREY, COLOUR])
def test_a_jpeg_keeps_its_pixels_and_nothing_else(array, options):
    data = _saved(array, "JPEG", exif=_exif(), comment=NAME, icc_profile=NAME * 9, **options)
    thumbnail = b"\xff\xe0" + struct.pack(">H", 16 + 3 * 4) + b"JFIF\0\1\1\0\0\1\0\1\2\2" + NAME + b"."
    secret = b"\xff\xed" + struct.pack(">H", 2 + len(NAME)) + NAME
    data = data[:2] + thumbnail + secret + data[20:] + b"\xff\xd8\xff\xe1" + NAME + b"\xff\xd9"
    assert data.count(NAME) >= 5
    bare = strip_metadata(data, ".jpg")
    assert NAME not in bare
    assert bare.endswith(b"\xff\xd9")
    assert bare[6:20] == b"JFIF\0\1\1\0\0\1\0\1\0\0"  # with a thumbnail of 0 x 0
    np.testing.assert_array_equal(_pixels(bare), _pixels(data))


def test_adobes_mark_of_the_colour_space_stays():
    stream = io.BytesIO()
    Image.fromarray(COLOUR).convert("CMYK").save(stream, "JPEG")
    data = stream.getvalue()
    assert b"Adobe" in data
    bare = strip_metadata(data, ".jpeg")
    assert b"Adobe" in bare
    np.testing.assert_array_equal(_pixels(bare), _pixels(data))


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_file_that_is_to_be_turned_cannot_keep_its_bytes(kind):
    suffix = {"PNG": ".png", "JPEG": ".jpg"}[kind]
    assert strip_metadata(_saved(GREY, kind, exif=_exif(6)), suffix) is None
    assert strip_metadata(_saved(GREY, kind, exif=_exif(1)), suffix) is not None


def test_files_that_are_not_what_they_are_called_cannot_keep_their_bytes():
    png, jpeg = _saved(GREY, "PNG"), _saved(GREY, "JPEG")
    assert strip_metadata(png, ".jpg") is None
    assert strip_metadata(jpeg, ".png") is None
    assert strip_metadata(png, ".tif") is None
    assert strip_metadata(b"", ".png") is None
    for whole, suffix in ((png, ".png"), (jpeg, ".jpg")):
        for length in range(0, len(whole) - 2, 7):
            assert strip_metadata(whole[:length], suffix) is None


def test_every_flipped_bit_of_a_png_and_a_missing_end_of_a_jpeg_are_found():
    png = _saved(GREY[:9, :9], "PNG")
    assert png_fault(png) is None
    for at in range(8, len(png)):
        changed = bytearray(png)
        changed[at] ^= 4
        assert png_fault(bytes(changed)) is not None
    jpeg = _saved(GREY, "JPEG", exif=_exif())
    assert jpeg_fault(jpeg) is None
    assert jpeg_fault(jpeg + b"\0" * 9) is None
    assert jpeg_fault(jpeg[:-2]) == "cut short"
    assert png_fault(jpeg) is None
    assert jpeg_fault(png) is None


def _chunk_names(png):
    at = 8
    while at < len(png):
        yield at + 4
        length = int.from_bytes(png[at : at + 4], "big")
        assert zlib.crc32(png[at + 4 : at + 8 + length]) == int.from_bytes(
            png[at + 8 + length : at + 12 + length], "big"
        )
        at += 12 + length
