from __future__ import annotations

import tracemalloc
import zlib

import numpy as np
import pydicom
import pytest
import SimpleITK
from pydicom.data import get_testdata_file
from pydicom.uid import JPEG2000Lossless, RLELossless

from vissl_jointssl.preparation.decoding import dicom_header
from vissl_jointssl.preparation.decoding.dicom_gdcm import stream_size
from vissl_jointssl.preparation.decoding.dicom_pixels import read_stored
from vissl_jointssl.preparation.errors import ReadError

MANY = 2**20


def _shipped(name):
    """A file of pydicom's wheel; nothing is downloaded."""
    path = get_testdata_file(name, download=False)
    assert path is not None, f"this pydicom does not ship {name}"
    return path


@pytest.mark.parametrize("name", ["RLE", "bigendian", "expb", "implicit", "jp2klossless", "jpeg_ls_lossless", "padded"])
def test_every_coding_of_one_slice_gives_the_same_values(tmp_path, name):
    plain, _ = read_stored(tmp_path / _shipped("MR_small.dcm"), MANY)
    coded, _ = read_stored(tmp_path / _shipped(f"MR_small_{name}.dcm"), MANY)
    assert plain.shape == (1, 64, 64)
    np.testing.assert_array_equal(coded, plain)


@pytest.mark.parametrize("coder", ["JPEG", "JPEGLS", "JPEG2000", "RLE"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16])
def test_what_simpleitk_compressed_without_loss_comes_back(tmp_path, coder, dtype):
    plane = np.random.default_rng(0).integers(0, 250, (30, 40)).astype(dtype) * (1 if dtype is np.uint8 else 13)
    if dtype is np.int16:
        plane -= 1024
    writer = SimpleITK.ImageFileWriter()
    writer.SetFileName(str(tmp_path / "a.dcm"))
    writer.UseCompressionOn()
    writer.SetCompressor(coder)
    writer.Execute(SimpleITK.GetImageFromArray(plane))
    stored, header = read_stored(tmp_path / "a.dcm", MANY)
    assert header.file_meta.TransferSyntaxUID.is_compressed
    np.testing.assert_array_equal(stored[0], plane)


def test_colours_come_as_rgb_from_every_coding(tmp_path):
    reference = pydicom.dcmread(_shipped("SC_rgb_rle.dcm")).pixel_array
    for name in ("dcmtk_+eb+cy+np", "gdcm_KY", "rle", "jpeg_gdcm", "dcmtk_+eb+cr"):
        stored, _ = read_stored(tmp_path / _shipped(f"SC_rgb_{name}.dcm"), MANY)
        difference = np.abs(stored[0].astype(int) - reference)
        assert np.percentile(difference, 80) <= 2  # lossy coding smears the edges of the coloured bars


def test_frames_cut_short_are_refused_before_they_are_decoded(tmp_path, save_slice):
    path = save_slice(tmp_path / "a.dcm", np.arange(24, dtype=np.uint16).reshape(4, 6))
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ReadError, match=r"a.dcm: is cut short: 38 of 48 bytes of pixels are there"):
        read_stored(path, MANY)
    path = save_slice(tmp_path / "b.dcm", np.arange(24, dtype=np.uint16).reshape(4, 6), Rows=40)
    with pytest.raises(ReadError, match="is cut short: 48 of 480 bytes"):
        read_stored(path, MANY)


@pytest.mark.parametrize(
    ("tags", "code"),
    [
        ({"Rows": 60000, "Columns": 60000}, "too_large"),
        ({"NumberOfFrames": 2**31 - 1}, "too_large"),
        ({"NumberOfFrames": -3}, "dimensions"),
        ({"Rows": 0}, "dimensions"),
        ({"SamplesPerPixel": 2}, "dimensions"),
        ({"HighBit": 12, "BitsStored": 12}, "unsupported"),
    ],
)
def test_claims_are_checked_before_room_is_made(tmp_path, save_slice, tags, code):
    path = save_slice(tmp_path / "a.dcm", np.arange(24, dtype=np.uint16).reshape(4, 6))
    header = pydicom.dcmread(path)
    for keyword, value in tags.items():
        setattr(header, keyword, value)
    header.save_as(path)
    tracemalloc.start()
    with pytest.raises(ReadError) as caught:
        read_stored(path, MANY)
    assert tracemalloc.get_traced_memory()[1] < 20_000_000
    tracemalloc.stop()
    assert caught.value.code == code


def test_a_frame_of_another_size_than_its_header_is_refused(tmp_path):
    header = pydicom.dcmread(_shipped("MR_small_jp2klossless.dcm"))
    header.Rows = 32
    header.save_as(tmp_path / "a.dcm")
    with pytest.raises(ReadError, match="holds a frame of 64 x 64 pixels, its header says 32 x 64"):
        read_stored(tmp_path / "a.dcm", MANY)


def test_streams_tell_their_size_and_anything_else_none():
    for name in ("MR_small_jp2klossless", "MR_small_jpeg_ls_lossless", "SC_rgb_jpeg_dcmtk", "JPGExtended"):
        header = pydicom.dcmread(_shipped(f"{name}.dcm"))
        frame = next(pydicom.encaps.generate_frames(header.PixelData, number_of_frames=1))
        assert stream_size(frame) == (header.Rows, header.Columns)
    for frame in (b"", b"\xff", b"\xff\xd8", b"\xff\xd8\xff\xff\xff\xff", b"\xff\xd8\xff\xe0\x00", b"RLE data" * 9):
        assert stream_size(frame) is None


def test_a_deflated_data_set_that_unpacks_without_end_is_stopped(tmp_path, save_slice, monkeypatch):
    path = save_slice(tmp_path / "a.dcm", np.zeros((2000, 2000), np.uint16) + np.arange(2000, dtype=np.uint16))
    header = pydicom.dcmread(path)
    header.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    header.save_as(path)
    for padding in (b"", b"\0", b"\0\0"):  # which once kept the reader waiting for ever
        path.write_bytes(path.read_bytes() + padding)
        assert read_stored(path, 2**22)[0].shape == (1, 2000, 2000)
    monkeypatch.setattr(dicom_header, "MAX_BYTES", 2**20)
    tracemalloc.start()
    with pytest.raises(ReadError, match="unpacks to more than 1048576 bytes") as caught:
        read_stored(path, 2**22)
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()
    assert caught.value.code == "too_large"
    path.write_bytes(path.read_bytes()[:400])
    with pytest.raises(ReadError):
        read_stored(path, 2**22)
    assert zlib.error in dicom_header.decoder_errors()


@pytest.mark.parametrize(
    "syntax", [RLELossless, JPEG2000Lossless, "1.2.840.10008.1.2.4.102", "1.2.840.10008.1.2.4.201"]
)
def test_codings_that_nobody_decodes_and_streams_of_garbage_are_refused(tmp_path, save_slice, syntax):
    path = save_slice(tmp_path / "a.dcm", np.arange(24, dtype=np.uint16).reshape(4, 6))
    header = pydicom.dcmread(path)
    header.PixelData = pydicom.encaps.encapsulate([b"garbage " * 20])
    header["PixelData"].VR = "OB"
    header.file_meta.TransferSyntaxUID = syntax
    header.save_as(path)
    with pytest.raises(ReadError, match=r"its pixels cannot be decoded \(\w+\)"):
        read_stored(path, MANY)
