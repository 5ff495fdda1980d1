from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import nibabel
import nibabel.testing
import numpy as np
import pytest

from vissl_jointssl.preparation.decoding.nifti import read_nifti
from vissl_jointssl.preparation.errors import ReadError

AFFINE = np.array([[-0.5, 0.1, 0, 3], [0.1, 2, 0, 4], [0, 0, 3, 5], [0, 0, 0, 1]])


def image(array: np.ndarray | None = None, kind: type = nibabel.Nifti1Image) -> nibabel.Nifti1Image:
    if array is None:
        array = np.random.default_rng(0).integers(-900, 900, (5, 6, 7)).astype(np.int16)
    return kind(array, AFFINE)


def save(path: Path, what: nibabel.Nifti1Image, offset: int | None = None, value: bytes = b"") -> Path:
    """Write an image, with bytes of its header replaced."""
    content = bytearray(what.to_bytes())
    if offset is not None:
        content[offset : offset + len(value)] = value
    path.write_bytes(gzip.compress(bytes(content)) if path.suffix.lower() == ".gz" else bytes(content))
    return path


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "A.NII", "A.Nii.GZ"])
@pytest.mark.parametrize("dtype", ["u1", "i1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"])
def test_every_number_type_reads_as_nibabel_reads_it(tmp_path, kind, name, dtype):
    array = np.random.default_rng(0).integers(0, 120, (3, 4, 5)).astype(dtype)
    path = save(tmp_path / name, kind(array, AFFINE, dtype=dtype))
    decoded = read_nifti(path)
    assert decoded.array.dtype == dtype
    np.testing.assert_array_equal(decoded.array, array)
    single = "f4" if kind is nibabel.Nifti1Image else "f8"
    np.testing.assert_array_equal(decoded.affine, AFFINE.astype(single))
    assert (decoded.geometry, decoded.notes) == ("place", ())


def test_the_files_that_nibabel_ships_read_as_nibabel_reads_them():
    folder = Path(nibabel.testing.data_path)
    for name in ("anatomical.nii", "functional.nii", "example4d.nii.gz", "example_nifti2.nii.gz", "standard.nii.gz"):
        expected = nibabel.load(folder / name)
        decoded = read_nifti(folder / name)
        np.testing.assert_allclose(decoded.array, expected.get_fdata(), rtol=1e-6)
        np.testing.assert_array_equal(decoded.affine, expected.affine)


def test_slope_and_intercept_are_applied_unless_they_say_that_there_are_none(tmp_path):
    array = image().get_fdata()
    for slope, intercept, expected in ((0.5, -1000, array * 0.5 - 1000), (0, 7, array), (np.nan, np.nan, array)):
        value = np.array([slope, intercept], "<f4").tobytes()
        read = read_nifti(save(tmp_path / "a.nii", image(), 112, value)).array
        np.testing.assert_array_equal(read, expected)
        assert read.itemsize <= 4
    for slope, intercept in ((np.inf, 0), (1, np.nan), (2, np.inf)):
        value = np.array([slope, intercept], "<f4").tobytes()
        with pytest.raises(ReadError, match="has a rescale slope or intercept that is not finite") as caught:
            read_nifti(save(tmp_path / "a.nii", image(), 112, value))
        assert caught.value.code == "not_finite"


def test_large_integers_are_scaled_in_double_precision(tmp_path):
    array = np.full((2, 2, 2), 2**24 + 1, np.int32)
    value = np.array([1 / 3, 0.1], "<f8").tobytes()
    read = read_nifti(save(tmp_path / "a.nii", image(array, nibabel.Nifti2Image), 176, value)).array
    np.testing.assert_allclose(read, (2**24 + 1) / 3 + 0.1, rtol=1e-14)


def test_colours_and_complex_numbers_are_refused(tmp_path):
    colours = np.zeros((3, 4, 5), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    files = [save(tmp_path / f"{a.dtype.kind}.nii", image(a)) for a in (colours, np.ones((3, 4, 5), np.complex64))]
    for code in (1, 1536, 2304):  # single bits, 128-bit floats, RGBA
        files.append(save(tmp_path / f"{code}.nii", image(), 70, np.array([code], "<i2").tobytes()))
    for file in files:
        with pytest.raises(ReadError, match="holds voxels that are not plain numbers") as caught:
            read_nifti(file)
        assert caught.value.code == "unsupported"


def test_pairs_and_analyze_files_are_refused(tmp_path):
    for name, content in (
        ("pair.nii", nibabel.Nifti1Pair(np.ones((3, 4, 5), np.int16), AFFINE).header.binaryblock),
        ("analyze.nii", nibabel.AnalyzeImage(np.ones((3, 4, 5), np.int16), AFFINE).header.binaryblock),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ReadError, match=r"convert it to .nii.gz; Analyze does not say left from right") as caught:
            read_nifti(tmp_path / name)
        assert caught.value.code == "unsupported"


def test_a_suffix_that_contradicts_the_content_is_named(tmp_path):
    plain, packed = save(tmp_path / "a.nii", image()), save(tmp_path / "a.nii.gz", image())
    (tmp_path / "b.nii.gz").write_bytes(plain.read_bytes())
    (tmp_path / "b.nii").write_bytes(packed.read_bytes())
    with pytest.raises(ReadError, match=r"b.nii.gz: is named .gz, but holds a NIfTI or Analyze file, not gzip"):
        read_nifti(tmp_path / "b.nii.gz")
    with pytest.raises(ReadError, match=r"b.nii: is packed by gzip, .* Next: rename it to end in .nii.gz"):
        read_nifti(tmp_path / "b.nii")
    (tmp_path / "c.nii").write_bytes(b"\x89PNG" + bytes(600))
    with pytest.raises(ReadError, match=r"c.nii: cannot be read as NIfTI: it holds a PNG image"):
        read_nifti(tmp_path / "c.nii")


def test_a_flipped_bit_under_gzip_is_found_by_its_checksum(tmp_path):
    path = save(tmp_path / "a.nii.gz", image())
    content = bytearray(gzip.compress(gzip.decompress(path.read_bytes()), 0))  # stored: only the checksum can tell
    content[-600] ^= 1
    path.write_bytes(content)
    with pytest.raises(ReadError, match=r"its packed voxels are damaged or cut short \(BadGzipFile\)"):
        read_nifti(path)


@pytest.mark.parametrize(
    ("offset", "value", "code", "words"),
    [
        (0, b"\x00\x00\x00\x00", "unreadable", "cannot be read as NIfTI: it begins with bytes of no known format"),
        (40, np.array([9], "<i2").tobytes(), "unreadable", "its header claims 9 axes"),
        (40, np.array([3, -5], "<i2").tobytes(), "unreadable", r"claims a negative size \(-5 x 6 x 7\)"),
        (40, np.array([3, 5, 0], "<i2").tobytes(), "empty", "holds no voxel"),
        (40, np.array([3, 32767, 32767, 32767], "<i2").tobytes(), "too_large", "claims 32767 x 32767 x 32767 voxels"),
        (40, np.array([3, 5, 6, 8], "<i2").tobytes(), "unreadable", "is cut short"),
        (70, np.array([999], "<i2").tobytes(), "unreadable", "its header is damaged"),
        (108, np.array([np.nan], "<f4").tobytes(), "unreadable", "claims an impossible start of the voxels"),
        (108, np.array([-352], "<f4").tobytes(), "unreadable", "impossible start of the voxels|damaged"),
        (108, np.array([1e30], "<f4").tobytes(), "unreadable", "claims an impossible start of the voxels"),
        (344, b"ni1\0", "unsupported", "is Analyze, or one of a pair"),
    ],
)
def test_headers_that_cannot_be_are_refused(tmp_path, offset, value, code, words):
    for name in ("a.nii", "a.nii.gz"):
        with pytest.raises(ReadError, match=words) as caught:
            read_nifti(save(tmp_path / name, image(), offset, value))
        assert caught.value.code == code


def test_what_is_not_known_of_the_orientation_is_said(tmp_path):
    bare = nibabel.Nifti1Image(np.ones((3, 4, 5), np.int16), None)
    bare.header.set_zooms((1, 2, 3))
    bare.header.set_sform(None, 0)
    bare.header.set_qform(None, 0)
    decoded = read_nifti(save(tmp_path / "bare.nii", bare))
    np.testing.assert_array_equal(decoded.affine[:3, :3], np.diag([-1, 2, 3]))
    assert decoded.notes == ("does not say how it is oriented; taken as right to left, back to front, foot to head",)
    torn = nibabel.Nifti1Image(np.ones((3, 4, 5), np.int16), np.diag([1.0, 2, 3, 1]))
    torn.set_qform(np.diag([-1.0, 2, 3, 1]), 1)
    decoded = read_nifti(save(tmp_path / "torn.nii", torn))
    np.testing.assert_array_equal(decoded.affine, torn.get_sform())
    assert decoded.notes == ("its sform and qform name different orientations; the sform is taken",)


def test_sizes_in_metres_and_micrometres_become_millimetres(tmp_path):
    for unit, factor in (("meter", 1000), ("micron", 0.001), ("mm", 1), ("unknown", 1)):
        what = image()
        what.header.set_xyzt_units(unit)
        decoded = read_nifti(save(tmp_path / "a.nii", what))
        np.testing.assert_allclose(decoded.affine[:3], AFFINE[:3] * factor, rtol=1e-6)
        assert bool(decoded.notes) == (factor != 1)


def test_extensions_are_neither_read_nor_trusted(tmp_path):
    what = image()
    what.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"DOE^JANE " * 9))
    content = bytearray(what.to_bytes())
    content[352:356] = np.array([2**31 - 1], "<i4").tobytes()  # the extension claims two gigabytes
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(bytes(content)))
    np.testing.assert_array_equal(read_nifti(tmp_path / "a.nii.gz").array, image().get_fdata())


def test_nothing_of_a_header_is_logged(tmp_path, caplog, capfd):
    value = np.array([-3.0], "<f4").tobytes()  # nibabel mends a negative voxel size, and says so
    read_nifti(save(tmp_path / "a.nii", image(), 80, value))
    with pytest.raises(ReadError, match="damaged"):
        read_nifti(save(tmp_path / "b.nii", image(), 344, b"n+JD"))
    captured = capfd.readouterr()
    assert (caplog.text, captured.out, captured.err) == ("", "", "")


def test_several_gzip_members_are_one_file(tmp_path):
    content = image().to_bytes()
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(content[:400]) + gzip.compress(content[400:]))
    np.testing.assert_array_equal(read_nifti(tmp_path / "a.nii.gz").array, image().get_fdata())
    raw = zlib.compressobj(wbits=31)
    (tmp_path / "b.nii.gz").write_bytes(raw.compress(content) + raw.flush(zlib.Z_FULL_FLUSH))
    with pytest.raises(ReadError, match=r"damaged or cut short \(EOFError\)"):
        read_nifti(tmp_path / "b.nii.gz")
