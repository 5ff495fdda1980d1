from __future__ import annotations

import io
import random
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from vissl_jointssl.preparation.decoding import medmnist
from vissl_jointssl.preparation.decoding.medmnist import (
    array_names_of,
    read_classes,
    read_headers,
    read_samples,
    splits_of,
)
from vissl_jointssl.preparation.errors import ReadError

NAMES = ("train_images", "train_labels")
SHAPES = {"grey": (7, 5, 4), "colour": (7, 5, 4, 3), "volume": (7, 5, 4, 6)}


def arrays(shape: tuple[int, ...] = (7, 5, 4), labels: tuple[int, ...] = (7, 1)) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "train_images": rng.integers(0, 256, shape, dtype=np.uint8),
        "train_labels": rng.integers(0, 3, labels, dtype=np.uint8),
    }


@pytest.fixture
def save(tmp_path) -> Callable[..., Path]:
    def save(**changed: np.ndarray) -> Path:
        path = tmp_path / "set.npz"
        np.savez_compressed(path, **(arrays() | changed))
        return path

    return save


def header(shape: str, descr: str = "|u1") -> bytes:
    text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


def npz_of(path: Path, images: bytes, labels: bytes | None = None) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("train_images.npy", images)
        if labels is not None:
            archive.writestr("train_labels.npy", labels)
    return path


def read_all(path: Path, names: tuple[str, str] = NAMES) -> list[tuple[np.ndarray, int | None]]:
    return list(read_samples(path, names))


@pytest.mark.parametrize("saving", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_samples_equal_what_numpy_loads(tmp_path, shape, saving):
    saving(tmp_path / "set.npz", **arrays(shape))
    with np.load(tmp_path / "set.npz") as oracle:
        found = read_all(tmp_path / "set.npz")
        np.testing.assert_array_equal([image for image, _ in found], oracle["train_images"])
        assert [label for _, label in found] == oracle["train_labels"][:, 0].tolist()


@pytest.mark.parametrize(("shape", "kind"), [((7, 5, 4), "image"), ((7, 5, 4, 3), "image"), ((7, 5, 4, 6), "volume")])
def test_the_last_axis_tells_colour_from_volumes(save, shape, kind):
    assert read_headers(save(train_images=arrays(shape)["train_images"]), NAMES).kind == kind


@pytest.mark.parametrize("dtype", ["uint8", ">i4", "int64", "bool"])
def test_labels_of_any_whole_type_and_of_one_axis_are_read(save, dtype):
    labels = np.array([0, 1, 1, 0, 1, 0, 1]).astype(dtype)
    path = save(train_labels=labels)
    assert [label for _, label in read_all(path)] == list(read_classes(path, NAMES)) == labels.tolist()


def test_several_labels_a_sample_and_no_labels_give_none(save):
    path = save(train_labels=np.zeros((7, 14), np.uint8))
    assert {label for _, label in read_all(path)} == {None}
    assert list(read_classes(path, NAMES)) == []
    assert not read_headers(path, NAMES).has_classes
    assert {label for _, label in read_all(path, ("train_images", ""))} == {None}


def test_the_splits_of_a_file_and_their_arrays_are_told_by_its_names(tmp_path):
    images = np.zeros((2, 3, 3), np.uint8)
    np.savez(tmp_path / "set.npz", test_images=images, train_images=images, train_labels=images[:, 0, 0], extra=images)
    assert splits_of(tmp_path / "set.npz") == ("train", "test")
    assert array_names_of(tmp_path / "set.npz", "train") == NAMES
    assert array_names_of(tmp_path / "set.npz", "test") == ("test_images", "")


def test_memory_holds_one_sample_and_not_the_set(tmp_path):
    images = np.zeros((200, 64, 64, 64), np.uint8)  # 52 MB
    np.savez_compressed(tmp_path / "set.npz", train_images=images)
    del images
    tracemalloc.start()
    try:
        count = sum(1 for _ in read_samples(tmp_path / "set.npz", ("train_images", "")))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == 200
    assert peak < 4e6


@pytest.mark.parametrize(
    ("changed", "code", "message"),
    [
        ({"train_images": np.zeros((7, 5, 4), np.uint16)}, "unsupported", "train_images holds uint16, not uint8"),
        ({"train_images": np.zeros((7, 5, 4), np.float32)}, "unsupported", "holds float32, not uint8"),
        ({"train_images": np.zeros((7, 5), np.uint8)}, "dimensions", r"train_images has shape \(7, 5\)"),
        ({"train_images": np.zeros((7, 5, 1), np.uint8)}, "dimensions", r"has shape \(7, 5, 1\)"),
        ({"train_images": np.zeros((7, 5, 4, 6, 3), np.uint8)}, "dimensions", r"has shape \(7, 5, 4, 6, 3\)"),
        ({"train_images": np.zeros((0, 5, 4), np.uint8)}, "empty", r"has shape \(0, 5, 4\)"),
        ({"train_images": np.asfortranarray(np.zeros((7, 5, 4), np.uint8))}, "unsupported", "uint8 in Fortran order"),
        ({"train_images": np.array(["a", "b"], object)}, "unsupported", "holds pickled Python objects"),
        ({"train_labels": np.array([None] * 7, object)}, "unsupported", "train_labels holds pickled Python objects"),
        ({"train_images": np.zeros(7, [("a", "u1")])}, "unsupported", "train_images is of type"),
        ({"train_images": np.uint8(1)}, "dimensions", r"train_images has shape \(\)"),
        ({"train_labels": np.zeros((6, 1), np.uint8)}, "label_values", "train_labels has 6 rows, train_images has 7"),
        (
            {"train_labels": np.zeros((7, 1), np.float32)},
            "label_values",
            r"train_labels has shape \(7, 1\) and type float",
        ),
        ({"train_labels": np.zeros((7, 1, 1), np.uint8)}, "label_values", "train_labels has shape"),
        ({"train_labels": np.full((7, 1), -1)}, "label_values", "train_labels has -1 at sample 0"),
        ({"train_labels": np.full((7, 1), 65536)}, "label_values", "train_labels has 65536 at sample 0"),
    ],
)
def test_arrays_that_are_not_as_medmnist_writes_them_are_refused(save, changed, code, message):
    with pytest.raises(ReadError, match=message) as error:
        read_all(save(**changed))
    assert error.value.code == code


def test_missing_arrays_are_named(save):
    with pytest.raises(ReadError, match="holds no array 'val_images'"):
        read_all(save(), ("val_images", ""))


@pytest.mark.parametrize(
    ("images", "code", "message"),
    [
        (header("(4, 3, 3)") + bytes(35), "unreadable", "claims 36 bytes, the zip holds 35"),
        (header("(4, 3, 3)") + bytes(37), "unreadable", "claims 36 bytes, the zip holds 37"),
        (header(f"({2**31}, 64, 64)"), "too_large", "claims 8796093022208 bytes"),
        (header("(2, 70000, 70000)"), "unreadable", "claims 9800000000 bytes, the zip holds 0"),
        (header("(-4, 3, 3)"), "dimensions", r"train_images has shape \(-4, 3, 3\)"),
        (header("(4.5, 3, 3)"), "unreadable", "train_images has a damaged header"),
        (header("1+" * 4000 + "1"), "unreadable", "train_images has a damaged header"),
        (header("{" * 3000), "unreadable", "train_images has a damaged header"),
        (header("(" * 3000 + ")" * 3000), "unreadable", "train_images has a damaged header"),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + bytes(40), "unreadable", "train_images has a damaged header"),
        (b"\x93NUM", "unreadable", "train_images has a damaged header"),
        (b"", "unreadable", "train_images has a damaged header"),
    ],
)
def test_headers_that_lie_are_refused_before_anything_is_unpacked(tmp_path, images, code, message):
    with pytest.raises(ReadError, match=message) as error:
        read_all(npz_of(tmp_path / "set.npz", images), ("train_images", ""))
    assert error.value.code == code


def test_samples_larger_than_any_are_refused(save, monkeypatch):
    monkeypatch.setattr(medmnist, "MAX_SAMPLE_VALUES", 19)
    with pytest.raises(ReadError, match=r"train_images claims samples of \(5, 4\)") as error:
        read_all(save())
    assert error.value.code == "too_large"


def test_a_bomb_is_told_by_the_size_that_the_zip_states(tmp_path):
    path = npz_of(tmp_path / "set.npz", header("(4, 3, 3)") + bytes(20_000_000))
    assert path.stat().st_size < 50_000
    tracemalloc.start()
    try:
        with pytest.raises(ReadError, match="claims 36 bytes, the zip holds 20000000"):
            read_all(path, ("train_images", ""))
        assert tracemalloc.get_traced_memory()[1] < 1e6
    finally:
        tracemalloc.stop()


def test_a_stated_size_that_lies_ends_with_the_data(tmp_path):
    path = npz_of(tmp_path / "set.npz", header("(4, 30, 30)") + bytes(3600))
    for what in (b"PK\x01\x02", b"PK\x03\x04"):  # the stated size in both of zip's headers, and that of the array
        data = bytearray(path.read_bytes())
        at = data.index(what) + (24 if what == b"PK\x01\x02" else 22)
        data[at : at + 4] = (128 + 900 * 5).to_bytes(4, "little")
        path.write_bytes(data)
    with pytest.raises(ReadError, match="claims 3600 bytes, the zip holds 4500"):
        read_all(path, ("train_images", ""))


@pytest.mark.parametrize("content", [b"", b"PK\x05\x06", b"no zip at all", bytes(1000)])
def test_what_is_no_zip_is_refused(tmp_path, content):
    (tmp_path / "set.npz").write_bytes(content)
    with pytest.raises(ReadError, match=r"set.npz: (is empty \(0 bytes\)|is damaged or no .npz)") as error:
        splits_of(tmp_path / "set.npz")
    assert error.value.code == ("unreadable" if content else "empty")


def test_a_file_that_is_missing_or_forbidden_is_told_apart(tmp_path, save, monkeypatch):
    with pytest.raises(ReadError, match="does not exist") as error:
        splits_of(tmp_path / "none.npz")
    assert error.value.code == "missing"
    path = save()

    def forbidden(*_: object, **__: object) -> None:
        raise PermissionError

    monkeypatch.setattr(zipfile, "ZipFile", forbidden)
    with pytest.raises(ReadError, match="may not be read") as error:
        splits_of(path)
    assert error.value.code == "forbidden"


def test_another_packing_than_numpys_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "set.npz", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("train_images.npy", header("(4, 3, 3)") + bytes(36))
    with pytest.raises(ReadError, match="packed in a way that NumPy does not write") as error:
        read_all(tmp_path / "set.npz", ("train_images", ""))
    assert error.value.code == "unsupported"


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_a_file_cut_short_is_refused(save, share):
    path = save()
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(ReadError):
        read_all(path)


def test_a_changed_voxel_is_found_by_the_sum_of_the_zip(tmp_path):
    np.savez(tmp_path / "set.npz", **arrays())
    data = bytearray((tmp_path / "set.npz").read_bytes())
    data[data.index(arrays()["train_images"].tobytes()) + 70] ^= 1
    (tmp_path / "set.npz").write_bytes(data)
    with pytest.raises(ReadError, match=r"is damaged or no .npz \(BadZipFile\)"):
        read_all(tmp_path / "set.npz")


def test_random_damage_is_a_read_error_or_does_no_harm(tmp_path):
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays())
    sound, draw = stream.getvalue(), random.Random(0)
    refused = 0
    for _ in range(300):
        data = bytearray(sound)
        for _ in range(draw.randint(1, 8)):
            data[draw.randrange(len(data))] = draw.randrange(256)
        (tmp_path / "set.npz").write_bytes(data)
        try:
            read_all(tmp_path / "set.npz")
        except ReadError:
            refused += 1
    assert refused > 200
