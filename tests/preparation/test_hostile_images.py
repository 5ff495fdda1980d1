"""Files that claim too much, are cut short, or hold garbage: one clear line each, little memory, little time."""

from __future__ import annotations

import contextlib
import io
import random
import struct
import time
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin
from pydicom.data import get_testdata_file

from vissl_jointssl.preparation.decoding import images
from vissl_jointssl.preparation.decoding.dicom import group_series, read_dicom_file, series_faults
from vissl_jointssl.preparation.errors import ReadError
from vissl_jointssl.preparation.pictures import read_mask, read_picture, strip_metadata

GREY = (np.random.default_rng(0).integers(0, 40, (40, 50)) + np.arange(50) * 3).astype(np.uint8)
DICOM = ("CT_small", "MR_small_RLE", "MR_small_jp2klossless", "MR_small_jpeg_ls_lossless", "image_dfl", "rtdose_rle")


def _saved(array, kind, **options):
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, kind, **options)
    return stream.getvalue()


def _samples():
    deep = GREY.astype(np.uint16) * 200
    array = io.BytesIO()
    np.save(array, deep)
    samples = {
        "a.png": _saved(GREY, "PNG"),
        "b.png": _saved(deep, "PNG"),
        "a.jpg": _saved(np.dstack([GREY] * 3), "JPEG"),
        "b.jpg": _saved(GREY, "JPEG", progressive=True),
        "a.tif": _saved(deep, "TIFF"),
        "b.tif": _saved(deep, "TIFF", compression="tiff_lzw"),
        "c.tif": _saved(deep, "TIFF", compression="tiff_deflate"),
        "a.gif": _saved(GREY, "GIF"),
        "a.bmp": _saved(GREY, "BMP"),
        "a.npy": array.getvalue(),
    }
    for name in DICOM:
        path = get_testdata_file(f"{name}.dcm", download=False)
        if path is not None:
            with open(path, "rb") as file:  # noqa: PTH123 (pydicom gives a string)
                samples[f"{name}.dcm"] = file.read()
    return samples


SAMPLES = _samples()


def _png(width, height, pixels=b"", extra=b""):
    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def _refused(path):
    """The error of reading a file, which must come soon, in one line, and without much memory."""
    tracemalloc.start()
    start = time.monotonic()
    try:
        with pytest.raises(ReadError) as caught:
            read_picture(path)
        assert time.monotonic() - start < 2
        assert tracemalloc.get_traced_memory()[1] < 50_000_000
    finally:
        tracemalloc.stop()
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize("name", SAMPLES)
def test_empty_half_and_foreign_files_of_every_format_are_refused(tmp_path, name):
    path, whole = tmp_path / name, SAMPLES[name]
    path.write_bytes(whole)
    if name not in ("rtdose_rle.dcm",):
        assert read_picture(path).array.ndim == 2
    path.write_bytes(b"")
    assert _refused(path).code in ("empty", "unreadable")
    for content in (whole[: len(whole) // 2], whole[:20], b"garbage " * 500, bytes(5000)):
        path.write_bytes(content)
        assert _refused(path).code in ("unreadable", "unsupported", "dimensions")


@pytest.mark.parametrize("name", [name for name in SAMPLES if name not in ("a.gif", "rtdose_rle.dcm")])
def test_the_end_of_the_pixels_may_not_be_missing(tmp_path, name):
    # 97 %: pydicom's MR files end with 2 % of padding.
    (tmp_path / name).write_bytes(SAMPLES[name][: int(len(SAMPLES[name]) * 0.97)])
    assert _refused(tmp_path / name).code == "unreadable"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.png", _png(60000, 60000, zlib.compress(bytes(10**6)))),
        ("b.png", _png(2**31 - 1, 2**31 - 1)),
        ("a.bmp", SAMPLES["a.bmp"][:18] + struct.pack("<ii", 2**30, 2**30) + SAMPLES["a.bmp"][26:]),
        ("a.gif", SAMPLES["a.gif"][:6] + b"\xff\xff\xff\xff" + SAMPLES["a.gif"][10:]),
    ],
)
def test_claims_of_more_pixels_than_any_image_has_are_refused_by_the_header(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    error = _refused(tmp_path / name)
    assert error.code == "too_large"
    assert "more than 268435456" in str(error)


def test_a_tiff_that_claims_too_much_is_refused(tmp_path):
    content = bytearray(SAMPLES["a.tif"])
    for tag in (256, 257):
        at = content.find(struct.pack("<HHI", tag, 4, 1))
        at = at if at >= 0 else content.find(struct.pack("<HHI", tag, 3, 1))
        content[at : at + 12] = struct.pack("<HHII", tag, 4, 1, 2**28)
    (tmp_path / "a.tif").write_bytes(content)
    assert _refused(tmp_path / "a.tif").code == "too_large"


def test_the_limit_stands_at_its_number_and_pillows_does_not(tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(SAMPLES["a.png"])
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4)
    assert read_picture(tmp_path / "a.png").array.shape == (40, 50)
    monkeypatch.setattr(images, "MAX_PIXELS", 40 * 50 - 1)
    assert _refused(tmp_path / "a.png").code == "too_large"


def test_text_that_unpacks_without_end_is_not_unpacked_into_memory(tmp_path):
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", "A" * 30_000_000, zip=True)
    (tmp_path / "a.png").write_bytes(_saved(GREY, "PNG", pnginfo=text))
    assert _refused(tmp_path / "a.png").code == "unreadable"


def test_objects_in_an_array_file_are_not_unpickled(tmp_path):
    np.save(tmp_path / "a.npy", np.array([[{"a": 1}]], dtype=object), allow_pickle=True)
    assert _refused(tmp_path / "a.npy").code in ("unsupported", "unreadable")


def test_names_with_line_breaks_spaces_and_letters_of_any_script_make_one_line(tmp_path, save_slice):
    for name in ("a b.png", "lunge-é-肺.png", "two\nlines.png", "\x1b[31m.png"):
        (tmp_path / name).write_bytes(SAMPLES["a.png"])
        assert read_picture(tmp_path / name).array.shape == (40, 50)
        (tmp_path / name).write_bytes(b"no")
        assert "\x1b" not in str(_refused(tmp_path / name))
    folder = tmp_path / "the\nseries"
    places = {"ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "PixelSpacing": [1, 1]}
    for k in range(3):
        save_slice(folder / f"slice\n{k} é", GREY, ImagePositionPatient=[0, 0, k], **places)
    assert series_faults(folder) == []
    victim = folder / "slice\n1 é"
    victim.write_bytes(victim.read_bytes()[:-9])
    with pytest.raises(ReadError) as caught:
        read_dicom_file(victim)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("code", ["missing", "forbidden"])
def test_files_that_are_away_or_locked_are_said_to_be_so(tmp_path, monkeypatch, code):
    def refuse(*args, **kwargs):
        raise {"missing": FileNotFoundError, "forbidden": PermissionError}[code]

    (tmp_path / "a.png").write_bytes(SAMPLES["a.png"])
    monkeypatch.setattr("pathlib.Path.read_bytes", refuse)
    assert _refused(tmp_path / "a.png").code == code
    for name in ("no.npy", "no.dcm", "no.img"):
        assert _refused(tmp_path / name).code == "missing"


@pytest.mark.parametrize("name", SAMPLES)
def test_random_damage_ends_in_a_read_error_or_in_a_picture(tmp_path, name):
    path, whole = tmp_path / name, SAMPLES[name]
    doings = [read_picture, lambda path: read_mask(path, (40, 50))]
    if name.endswith(".dcm"):
        doings += [read_dicom_file, lambda path: group_series([path])]
    else:
        doings += [lambda path: strip_metadata(path.read_bytes(), path.suffix)]
    for seed in range(25):
        rng = random.Random(f"{name} {seed}")
        data = bytearray(whole)
        reach = min(len(data), 1500) if seed % 2 else len(data)
        for _ in range(rng.choice((1, 2, 8))):
            at = rng.randrange(reach)
            data[at : at + 4] = rng.choice((bytes([rng.randrange(256)]) * 4, b"\xff\xff\xff\x7f", bytes(4)))
        path.write_bytes(bytes(data[: len(whole)]))
        for doing in doings:
            with contextlib.suppress(ReadError):  # anything else fails the test
                doing(path)
