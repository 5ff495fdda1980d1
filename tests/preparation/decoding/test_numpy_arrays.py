from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest

from vissl_jointssl.preparation.decoding.numpy_arrays import read_npy_array, read_numpy
from vissl_jointssl.preparation.errors import ReadError
from vissl_jointssl.preparation.reading import read_scan

ARRAY = np.random.default_rng(0).integers(-900, 900, (5, 6, 7)).astype(np.int16)  # (F, H, W)


class Trap:
    """Leaves a trace when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path.touch, (Path("sprung"),))


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def header_of(text: str, version: bytes = b"\x01\x00") -> bytes:
    return b"\x93NUMPY" + version + len(text).to_bytes(2, "little") + text.encode("latin-1")


@pytest.mark.parametrize("dtype", ["u1", "i1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8", ">i2", ">f8", "?"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_of_numbers_come_back_as_they_were(tmp_path, dtype, order):
    array = np.asarray(np.random.default_rng(0).integers(0, 2, (3, 4, 5)).astype(dtype), order=order)
    np.save(tmp_path / "a.npy", array)
    np.savez(tmp_path / "a.npz", array)
    np.savez_compressed(tmp_path / "b.NPZ", array)
    (tmp_path / "b.NPZ.npz").rename(tmp_path / "b.NPZ")
    for read in (
        read_npy_array(tmp_path / "a.npy"),
        read_numpy(tmp_path / "a.npz").array,
        read_numpy(tmp_path / "b.NPZ").array,
    ):
        np.testing.assert_array_equal(read, array)
        assert read.dtype == (np.uint8 if dtype == "?" else dtype)


def test_a_bare_array_is_slices_of_unknown_spacing(tmp_path):
    np.save(tmp_path / "a.npy", ARRAY)
    scan = read_scan(tmp_path / "a.npy")
    np.testing.assert_array_equal(scan.array, ARRAY)
    assert (scan.spacing, scan.geometry, scan.source_shape) == (None, "nothing", (5, 6, 7))
    assert scan.notes == ("says nothing of spacing and orientation; its axes are taken as (F, H, W) of axial slices",)
    np.save(tmp_path / "channels.npy", np.stack([ARRAY, ARRAY + 1]))
    np.testing.assert_array_equal(read_scan(tmp_path / "channels.npy").array, np.stack([ARRAY, ARRAY + 1]))
    # Coronal rows run from the head down, so slices from the feet up are turned over.
    np.testing.assert_array_equal(read_scan(tmp_path / "a.npy", "coronal").array, ARRAY.transpose(1, 0, 2)[::-1, ::-1])


def test_spacing_and_affine_may_lie_beside_the_array(tmp_path):
    np.savez(tmp_path / "spacing.npz", image=ARRAY, spacing=[3, 0.5, 2])
    scan = read_scan(tmp_path / "spacing.npz")
    np.testing.assert_array_equal(scan.array, ARRAY)
    assert (scan.spacing, scan.geometry) == ((3, 0.5, 2), "spacing")
    np.savez(tmp_path / "affine.npz", affine=np.diag([2.0, 3, 4, 1]), image=ARRAY)
    scan = read_scan(tmp_path / "affine.npz")
    np.testing.assert_array_equal(scan.array, ARRAY.transpose(2, 1, 0)[:, ::-1, ::-1])
    assert (scan.spacing, scan.geometry, scan.notes) == ((4, 3, 2), "place", ())


@pytest.mark.parametrize(
    ("members", "code", "words"),
    [
        ({"spacing": [1.0, 2]}, "geometry", "its spacing is not 3 numbers of mm"),
        ({"spacing": [1.0, -2, 3]}, "geometry", "its spacing is not 3 numbers of mm"),
        ({"spacing": [1.0, np.nan, 3]}, "geometry", "its spacing is not 3 numbers of mm"),
        ({"affine": np.eye(3)}, "geometry", "its affine is not 4 x 4 numbers of mm"),
        ({"affine": np.zeros((4, 4))}, "geometry", "says nothing usable about voxel size and position"),
        ({"affine": np.eye(4), "spacing": [1, 1, 1]}, "geometry", "holds an affine and a spacing"),
        ({"image": np.array(["DOE^JANE"])}, "unsupported", "holds values that are not plain numbers"),
        ({"image": np.ones((3, 3, 3), complex)}, "unsupported", "holds values that are not plain numbers"),
        ({"image": np.zeros((2, 2, 2), [("a", "i2")])}, "unsupported", "holds values that are not plain numbers"),
        ({"image": np.ones((3, 3))}, "dimensions", r"is not a 3D volume: it has shape \(3, 3\)"),
        ({"image": np.ones(())}, "dimensions", r"is not a 3D volume: it has shape \(\)"),
        ({"image": np.ones((0, 3, 3))}, "empty", "holds no voxel"),
    ],
)
def test_arrays_that_are_no_scan_are_refused(tmp_path, members, code, words):
    np.savez(tmp_path / "a.npz", **({"image": ARRAY} | members))
    with pytest.raises(ReadError, match=words) as caught:
        read_scan(tmp_path / "a.npz")
    assert caught.value.code == code
    assert "DOE" not in str(caught.value)


def test_of_several_arrays_the_one_named_image_is_read(tmp_path):
    np.savez(tmp_path / "a.npz", image=ARRAY, labels=ARRAY > 0, other=ARRAY * 2)
    np.testing.assert_array_equal(read_numpy(tmp_path / "a.npz").array, ARRAY)
    np.testing.assert_array_equal(read_numpy(tmp_path / "a.npz", labels=True).array, ARRAY > 0)
    np.savez(tmp_path / "b.npz", train_images=ARRAY, test_images=ARRAY)
    with pytest.raises(ReadError, match=r"holds 2 arrays and none named image or array.*MedMNIST") as caught:
        read_numpy(tmp_path / "b.npz")
    assert caught.value.code == "unsupported"
    np.savez(tmp_path / "c.npz", spacing=[1, 1, 1])
    with pytest.raises(ReadError, match="holds 0 arrays"):
        read_numpy(tmp_path / "c.npz")


def test_pickled_objects_are_refused_and_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trapped = np.array([Trap()], dtype=object)
    content = npy(trapped)
    assert pickle.loads(content[content.index(b"\n") + 1 :]) is not None  # noqa: S301 - the trap does spring
    assert Path("sprung").exists()
    Path("sprung").unlink()
    np.save("a.npy", trapped)
    np.savez("a.npz", image=trapped)
    Path("raw.npy").write_bytes(pickle.dumps(Trap()))
    for name in ("a.npy", "a.npz"):
        with pytest.raises(ReadError, match="holds pickled Python objects, which run code") as caught:
            read_scan(Path(name))
        assert caught.value.code == "unsupported"
    with pytest.raises(ReadError, match="cannot be read as a NumPy array"):
        read_scan(Path("raw.npy"))
    assert not Path("sprung").exists()


@pytest.mark.parametrize(
    ("content", "code", "words"),
    [
        (
            header_of("{'descr': '<i2', 'fortran_order': False, 'shape': (65536, 65536, 65536), }\n"),
            "too_large",
            "claims",
        ),
        (header_of("{'descr': '<i2', 'fortran_order': False, 'shape': (4, -4, 4), }\n"), "unreadable", "negative size"),
        (header_of("{'descr': '<i2', 'fortran_order': False, 'shape': (4, 4, 4), }\n"), "unreadable", "0 of the 128"),
        (header_of("{'descr': '<i2', 'fortran_order': False, 'shape': (4, 'DOE'), }\n"), "unreadable", "header is dam"),
        (header_of("{'descr': 'DOE', 'fortran_order': False, 'shape': (4, 4), }\n"), "unreadable", "header is damaged"),
        (header_of("(" * 5000), "unreadable", "header is damaged"),
        (header_of("{" * 5000, b"\x02\x00"), "unreadable", "impossible length|header is damaged"),
        (header_of("[" * 200 + "]" * 200), "unreadable", "header is damaged"),
        (header_of("x" * 20000), "unreadable", "its header is of an impossible length"),
        (b"\x93NUMPY\x01\x00\x01\x00" + bytes(100), "unreadable", "header is damaged"),
        (b"\x93NUMPY\x09\x00" + bytes(100), "unreadable", "its header is of an unknown version"),
        (b"\x93NUM", "unreadable", "cannot be read as a NumPy array"),
        (b"PK\x03\x04 and more", "unreadable", "cannot be read as a NumPy array: it holds a zip file"),
    ],
)
def test_npy_headers_that_cannot_be_are_refused(tmp_path, content, code, words):
    (tmp_path / "a.npy").write_bytes(content)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("image.npy", content)
    for name in ("a.npy", "a.npz"):
        with pytest.raises(ReadError, match=words) as caught:
            read_scan(tmp_path / name)
        assert caught.value.code == code
        assert "DOE" not in str(caught.value)


def test_headers_of_old_pythons_are_read(tmp_path):
    content = header_of("{'descr': '<i2', 'fortran_order': False, 'shape': (5L, 6L, 7L), }\n") + ARRAY.tobytes()
    (tmp_path / "a.npy").write_bytes(content)
    np.testing.assert_array_equal(read_npy_array(tmp_path / "a.npy"), ARRAY)


def test_damaged_and_odd_zip_files_are_refused(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", image=ARRAY)
    content = (tmp_path / "a.npz").read_bytes()
    broken = bytearray(content)
    broken[len(content) // 2] ^= 0xFF
    with zipfile.ZipFile(tmp_path / "many.npz", "w") as archive:
        for number in range(80):
            archive.writestr(f"{number}.npy", npy(np.ones(1)))
    with zipfile.ZipFile(tmp_path / "bzip2.npz", "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("image.npy", npy(ARRAY))
    encrypted = bytearray(content)
    encrypted[6] |= 1
    encrypted[content.index(b"PK\x01\x02") + 8] |= 1
    cases = {
        "half": (content[: len(content) // 2], "unreadable", r"it is no sound .npz \(BadZipFile\)"),
        "broken": (bytes(broken), "unreadable", "it is no sound .npz"),
        "png": (b"\x89PNG" + bytes(99), "unreadable", r"it is no sound .npz and holds a PNG image"),
        "many": ((tmp_path / "many.npz").read_bytes(), "unsupported", "holds too many arrays"),
        "bzip2": ((tmp_path / "bzip2.npz").read_bytes(), "unsupported", "encrypted or oddly packed"),
        "encrypted": (bytes(encrypted), "unsupported", "encrypted or oddly packed"),
    }
    for name, (data, code, words) in cases.items():
        (tmp_path / f"{name}.npz").write_bytes(data)
        with pytest.raises(ReadError, match=words) as caught:
            read_scan(tmp_path / f"{name}.npz")
        assert caught.value.code == code
