from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from vissl_jointssl.preparation.decoding.itk import read_itk
from vissl_jointssl.preparation.decoding.text_header import Promise
from vissl_jointssl.preparation.errors import ReadError

ARRAY = np.random.default_rng(0).integers(-900, 900, (5, 6, 7)).astype("<i2")  # (i, j, k)
META = {
    "ObjectType": "Image",
    "NDims": "3",
    "TransformMatrix": "0 1 0 1 0 0 0 0 1",
    "Offset": "1 2 3",
    "ElementSpacing": "0.5 2 3",
    "DimSize": "5 6 7",
    "ElementType": "MET_SHORT",
}
NRRD = {
    "type": "short",
    "dimension": "3",
    "space": "right-anterior-superior",
    "sizes": "5 6 7",
    "space directions": "(0,0.5,0) (2,0,0) (0,0,3)",
    "space origin": "(1,2,3)",
    "endian": "little",
    "encoding": "raw",
}
VOXELS = ARRAY.tobytes("F")


@pytest.fixture
def meta(tmp_path: Path) -> Callable[..., Path]:
    """Write a MetaImage by hand; None takes a field out."""

    def write(name: str = "a.mha", voxels: bytes = VOXELS, **fields: str | None) -> Path:
        last = {"ElementDataFile": fields.pop("ElementDataFile", "LOCAL")}
        lines = [f"{key} = {value}\n" for key, value in (META | fields | last).items() if value is not None]
        (tmp_path / name).write_bytes("".join(lines).encode() + voxels)
        return tmp_path / name

    return write


@pytest.fixture
def nrrd(tmp_path: Path) -> Callable[..., Path]:
    """Write an NRRD by hand; underscores in names stand for spaces."""

    def write(name: str = "a.nrrd", voxels: bytes = VOXELS, **fields: str | None) -> Path:
        changed = NRRD | {key.replace("_", " "): value for key, value in fields.items()}
        lines = [f"{key}: {value}\n" for key, value in changed.items() if value is not None]
        (tmp_path / name).write_bytes(("NRRD0004\n" + "".join(lines) + "\n").encode() + voxels)
        return tmp_path / name

    return write


def test_metaimage_speaks_lps_and_nrrd_what_it_says(meta, nrrd):
    by_meta, by_nrrd = read_itk(meta()), read_itk(nrrd())
    np.testing.assert_array_equal(by_meta.array, ARRAY)
    np.testing.assert_array_equal(by_nrrd.array, ARRAY)
    np.testing.assert_allclose(by_meta.affine, [[0, -2, 0, -1], [-0.5, 0, 0, -2], [0, 0, 3, 3], [0, 0, 0, 1]])
    np.testing.assert_allclose(by_nrrd.affine, [[0, 2, 0, 1], [0.5, 0, 0, 2], [0, 0, 3, 3], [0, 0, 0, 1]])
    assert by_meta.geometry == by_nrrd.geometry == "place"


@pytest.mark.parametrize("suffix", ["mha", "mhd", "nrrd", "nhdr", "MHA", "NRRD"])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("dtype", ["u1", "i1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"])
def test_every_number_type_comes_back_as_simpleitk_wrote_it(tmp_path, suffix, packed, dtype):
    array = np.random.default_rng(0).integers(0, 120, (3, 4, 5)).astype(dtype)
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(array), str(tmp_path / f"a.{suffix.lower()}"), packed)
    path = (tmp_path / f"a.{suffix.lower()}").rename(tmp_path / f"a.{suffix}")
    read = read_itk(path).array
    assert read.dtype == dtype
    np.testing.assert_array_equal(read, array.transpose())


def test_channels_come_last_wherever_the_file_has_them(nrrd):
    channels = np.stack([ARRAY, ARRAY + 1], -1)
    last = nrrd(
        "last.nrrd",
        channels.tobytes("F"),
        dimension="4",
        sizes="5 6 7 2",
        kinds="domain domain domain list",
        space_directions="(0,0.5,0) (2,0,0) (0,0,3) none",
    )
    first = nrrd(
        "first.nrrd",
        np.moveaxis(channels, -1, 0).tobytes("F"),
        dimension="4",
        sizes="2 5 6 7",
        kinds="vector domain domain domain",
        space_directions="none (0,0.5,0) (2,0,0) (0,0,3)",
    )
    for path in (last, first):
        np.testing.assert_array_equal(read_itk(path).array, channels)
        np.testing.assert_allclose(read_itk(path).affine, read_itk(nrrd()).affine)


def test_what_the_header_leaves_out_is_not_made_up(meta, nrrd):
    for path in (
        meta(TransformMatrix=None),
        nrrd(space_directions=None, spacings="0.5 2 3", space_origin=None, space=None),
    ):
        decoded = read_itk(path)
        assert decoded.geometry == "spacing"
        np.testing.assert_array_equal(decoded.affine[:3, :3], np.diag([-0.5, -2, 3]))
        assert "does not say how it is oriented" in decoded.notes[0]
    bare = {"space_directions": None, "space_origin": None, "space": None}
    for path in (meta(TransformMatrix=None, ElementSpacing=None), nrrd(**bare)):
        decoded = read_itk(path)
        assert decoded.geometry == "nothing"
        assert "says nothing of spacing" in decoded.notes[0]


@pytest.mark.parametrize("sizes", ["0 1 1", "nan 1 1", "1 inf 1", "1 1", "x y z"])
def test_sizes_that_cannot_be_are_no_geometry(meta, nrrd, sizes):
    for path in (
        meta(ElementSpacing=sizes),
        nrrd(space_directions=None, space=None, space_origin=None, spacings=sizes),
    ):
        with pytest.raises(ReadError, match=r"says nothing usable .* in its header's (ElementSpacing|spacings)") as e:
            read_itk(path)
        assert e.value.code == "geometry"


@pytest.mark.parametrize(
    "rows", [("0 0 0", "0 1 0", "0 0 1"), ("1 0 0", "2 0 0", "0 0 1"), ("nan 0 0", "0 1 0", "0 0 1")]
)
def test_directions_that_span_no_volume_are_no_geometry(meta, nrrd, rows):
    vectors = " ".join(f"({row.replace(' ', ',')})" for row in rows)
    for path in (meta(TransformMatrix=" ".join(rows)), nrrd(space_directions=vectors)):
        with pytest.raises(
            ReadError, match=r"nothing usable .* in its header's (TransformMatrix|spacedirections)"
        ) as e:
            read_itk(path)
        assert e.value.code == "geometry"


def test_a_space_of_the_scanner_says_nothing_of_the_patient(nrrd):
    assert read_itk(nrrd(space="scanner-xyz")).geometry == "spacing"
    assert read_itk(nrrd(space="RAS")).geometry == "place"


@pytest.mark.parametrize("name", ["/etc/hostname", "../a.raw", "sub/../../a.raw", "..\\a.raw", "C:\\a.raw", "C:a.raw"])
def test_data_files_outside_the_folder_are_not_followed(tmp_path, meta, nrrd, name):
    (tmp_path.parent / "a.raw").write_bytes(VOXELS)
    for path in (meta("a.mhd", b"", ElementDataFile=name), nrrd("a.nhdr", b"", **{"data file": name})):
        with pytest.raises(ReadError, match=r"names a data file outside its own folder, which is not foll") as caught:
            read_itk(path)
        assert caught.value.code == "unsupported"


@pytest.mark.parametrize("name", ["a.raw", "below/a b.raw", "été.raw"])
def test_data_files_inside_the_folder_are_read(tmp_path, meta, nrrd, name):
    paths = meta("a.mhd", b"", ElementDataFile=name), nrrd("a.nhdr", b"", **{"data file": name})
    for path in paths:
        with pytest.raises(ReadError, match=r"its data file is not there. Next: copy the data file as well") as caught:
            read_itk(path)
        assert caught.value.code == "missing"
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(VOXELS)
    for path in paths:
        np.testing.assert_array_equal(read_itk(path).array, ARRAY)
    (tmp_path / name).write_bytes(VOXELS[:-1])
    for path in paths:
        with pytest.raises(ReadError, match="raw: is cut short: 419 of the 420 bytes"):
            read_itk(path)


@pytest.mark.parametrize("name", ["LIST", "LIST 2", "a%02d.raw 1 7 1"])
def test_voxels_in_several_files_are_refused(meta, nrrd, name):
    for path in (meta("a.mhd", b"a.raw\n", ElementDataFile=name), nrrd("a.nhdr", b"", **{"data file": name})):
        with pytest.raises(ReadError, match=r"its voxels lie in several files. Next: write it again as one packed"):
            read_itk(path)


@pytest.mark.parametrize(
    ("fields", "code", "words"),
    [
        ({"DimSize": "65536 65536 65536"}, "too_large", "claims 65536 x 65536 x 65536 voxels"),
        ({"DimSize": "5 -6 7"}, "unreadable", r"claims a negative size \(5 x -6 x 7\)"),
        ({"DimSize": "5 0 7"}, "empty", "holds no voxel"),
        ({"DimSize": "5 6 8"}, "unreadable", "is cut short"),
        ({"DimSize": "5 6"}, "unreadable", "its header's NDims is missing or impossible"),
        ({"DimSize": "5 6 nan"}, "unreadable", "its header's DimSize is missing or impossible"),
        ({"DimSize": "9" * 30 + " 6 7"}, "unreadable", "its header's DimSize is missing or impossible"),
        ({"NDims": None}, "unreadable", "its header's NDims is missing or impossible"),
        ({"NDims": "2", "DimSize": "14 15"}, "dimensions", "is not one 3D volume: size and channels are"),
        ({"ElementNumberOfChannels": "1000000000"}, "too_large", "claims 5 x 6 x 7 x 1000000000 voxels"),
        ({"ElementNumberOfChannels": "-1"}, "unreadable", "claims a negative size"),
        ({"ElementType": "MET_OTHER"}, "unsupported", "its ElementType is not a plain number"),
        ({"BinaryData": "False"}, "unsupported", "its voxels are written as text"),
        ({"HeaderSize": "-7"}, "unreadable", "its header's HeaderSize is missing or impossible"),
        ({"CompressedData": "True", "CompressedDataSize": "-1"}, "unreadable", "its header's CompressedDataSize is"),
        ({"CompressedData": "True", "CompressedDataSize": "9999999"}, "unreadable", "is cut short"),
        (
            {"CompressedData": "True", "CompressedDataSize": "420", "DimSize": "512 512 512"},
            "unreadable",
            "420 packed bytes cannot hold",
        ),
        ({"CompressedData": "True", "CompressedDataSize": "420"}, "unreadable", r"its packed voxels are .*\(error\)"),
    ],
)
def test_metaimage_headers_that_cannot_be_are_refused(meta, fields, code, words):
    with pytest.raises(ReadError, match=words) as caught:
        read_itk(meta(**fields))
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("fields", "code", "words"),
    [
        ({"sizes": "65536 65536 65536"}, "too_large", "claims 65536 x 65536 x 65536 voxels"),
        ({"sizes": "5 -6 7"}, "unreadable", r"claims a negative size \(5 x -6 x 7\)"),
        ({"sizes": "5 6 0"}, "empty", "holds no voxel"),
        ({"sizes": "5 6 8"}, "unreadable", "is cut short"),
        ({"sizes": None}, "unreadable", "its header's sizes is missing or impossible"),
        ({"dimension": "4"}, "unreadable", "its header's dimension is missing or impossible"),
        ({"type": "block"}, "unsupported", "its type is not a plain number"),
        ({"encoding": "bzip2"}, "unsupported", "its encoding is not raw, gzip or text"),
        ({"encoding": "gzip", "sizes": "512 512 512"}, "unreadable", "420 packed bytes cannot hold"),
        ({"encoding": "gzip"}, "unreadable", r"its packed voxels are damaged or cut short \(BadGzipFile\)"),
        ({"encoding": "gzip", "byte_skip": "7"}, "unsupported", "its packed voxels do not follow its header"),
        ({"encoding": "ascii", "sizes": "50 6 7"}, "unreadable", "is cut short"),
        ({"byte_skip": "9999999999"}, "unreadable", "is cut short"),
        ({"line_skip": "-1"}, "unreadable", "its header's byte skip or line skip is missing or impossible"),
        ({"kinds": "domain domain"}, "unreadable", "its header's kinds is missing or impossible"),
        ({"kinds": "list list domain"}, "unsupported", "2 of its axes are not axes of space"),
        ({"kinds": "list domain domain"}, "dimensions", "is not one 3D volume"),
    ],
)
def test_nrrd_headers_that_cannot_be_are_refused(nrrd, fields, code, words):
    with pytest.raises(ReadError, match=words) as caught:
        read_itk(nrrd(**fields))
    assert caught.value.code == code


def test_headers_that_two_readers_may_understand_differently_are_refused(tmp_path, meta, nrrd):
    content = meta().read_bytes()
    for name, first, words in (
        ("twice.mha", b"DimSize = 900 900 900\n", "says one thing twice"),
        ("colon.mha", b"ElementDataFile: /etc/hostname = x\n", "its header's ElementDataFile is missing or impossible"),
        ("blank.mha", b"ElementDataFile /etc/hostname = x\n", "its header's ElementDataFile is missing or impossible"),
        ("return.mha", b"Comment = x\rElementDataFile = /etc/hostname\n", "its header holds bytes that are not text"),
        ("zero.mha", b"Comment = \0\n", "its header holds bytes that are not text"),
        ("long.mha", b"Comment = " + b"x" * 70000 + b"\n", "its header is damaged or cut short"),
    ):
        (tmp_path / name).write_bytes(content.replace(b"NDims", first + b"NDims"))
        with pytest.raises(ReadError, match=words):
            read_itk(tmp_path / name)
    content = nrrd().read_bytes()
    for name, first, words in (
        ("twice.nrrd", b"sizes: 5 6 7\n", "says one thing twice"),
        ("return.nrrd", b"# x\rdata file: /etc/hostname\n", "its header holds bytes that are not text"),
        ("no_colon.nrrd", b"hello\n", "its header is damaged or cut short"),
    ):
        (tmp_path / name).write_bytes(content.replace(b"dimension", first + b"dimension"))
        with pytest.raises(ReadError, match=words):
            read_itk(tmp_path / name)


def test_windows_line_ends_are_understood(tmp_path, meta, nrrd):
    for path in (meta(), nrrd()):
        content = path.read_bytes()
        end = len(content) - len(VOXELS)
        path.write_bytes(content[:end].replace(b"\n", b"\r\n") + content[end:])
        np.testing.assert_array_equal(read_itk(path).array, ARRAY)


def test_words_of_a_header_stay_out_of_messages(meta, nrrd):
    for path in (
        meta(TransformMatrix="DOE JANE DOE JANE", PatientName="DOE^JANE", ElementType="DOE"),
        meta(DimSize="DOE JANE"),
        nrrd(space="DOE-JANE", endian="DOE", encoding="DOE"),
        nrrd(space="DOE-JANE", endian="DOE"),
        nrrd(space_directions="(DOE,1,2)"),
        meta(ElementSpacing="DOE 1 1"),
    ):
        with pytest.raises(ReadError) as caught:
            read_itk(path)
        assert "DOE" not in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_name_that_is_not_utf8_is_read_or_refused_and_ends_no_process(meta, nrrd):
    name = os.fsdecode(b"J\xfcrg")
    np.testing.assert_array_equal(read_itk(meta(f"{name}.mha")).array, ARRAY)
    np.testing.assert_array_equal(read_itk(nrrd(f"{name}.nrrd")).array, ARRAY)
    path = meta(f"{name}.mhd", b"", ElementDataFile="a.raw")
    (path.parent / "a.raw").write_bytes(VOXELS)
    with pytest.raises(
        ReadError, match=r"J\\udcfcrg.mhd: has a name that is not UTF-8, and its voxels in another"
    ) as e:
        read_itk(path)
    assert e.value.code == "unsupported"


@pytest.mark.parametrize("share", [0.5, 0.99])
@pytest.mark.parametrize("level", [0, 6])
def test_packed_voxels_of_which_itk_would_make_something_are_refused(tmp_path, meta, nrrd, level, share):
    packers = (zlib.compressobj(level), zlib.compressobj(level, wbits=31))
    by_zlib, by_gzip = (packer.compress(VOXELS) + packer.flush() for packer in packers)

    def packed_meta(name: str, content: bytes) -> Path:
        return meta(name, content, CompressedData="True", CompressedDataSize=str(len(content)))

    for path in (packed_meta("a.mha", by_zlib), nrrd("a.nrrd", by_gzip, encoding="gzip")):
        np.testing.assert_array_equal(read_itk(path).array, ARRAY)
    cut = packed_meta("cut.mha", by_zlib[: int(len(by_zlib) * share)])
    assert SimpleITK.ReadImage(str(cut)).GetSize() == ARRAY.shape, "ITK refuses it by itself now: the check may go"
    flipped = bytearray(by_zlib), bytearray(by_gzip)
    for content in flipped:
        content[int(len(content) * share) - 1] ^= 8
    for path in (
        cut,
        nrrd("cut.nrrd", by_gzip[: int(len(by_gzip) * share)], encoding="gzip"),
        packed_meta("flipped.mha", bytes(flipped[0])),
        nrrd("flipped.nrrd", bytes(flipped[1]), encoding="gzip"),
        meta("short.mha", by_zlib, CompressedData="True", CompressedDataSize=str(len(by_zlib) - 7)),
    ):
        with pytest.raises(ReadError, match="its packed voxels are damaged or cut short") as caught:
            read_itk(path)
        assert caught.value.code == "unreadable"


def test_the_length_of_packed_voxels_may_be_left_out_where_they_have_a_file_of_their_own(tmp_path, meta):
    packed = zlib.compress(VOXELS)
    (tmp_path / "a.zraw").write_bytes(packed)
    detached = meta("a.mhd", b"", CompressedData="True", ElementDataFile="a.zraw")
    np.testing.assert_array_equal(read_itk(detached).array, ARRAY)
    with pytest.raises(ReadError, match="its header's CompressedDataSize is missing or impossible"):
        read_itk(meta("a.mha", packed, CompressedData="True"))


def test_a_header_that_itk_understands_otherwise_is_refused(nrrd, monkeypatch):
    path = nrrd()
    promise = Promise((5, 6, 6), 1, path, "place")
    monkeypatch.setattr("vissl_jointssl.preparation.decoding.itk.read_nrrd_header", lambda _: promise)
    with pytest.raises(ReadError, match="cannot be read: ITK understands its header otherwise"):
        read_itk(path)
