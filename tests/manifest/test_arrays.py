"""Files that lie about being arrays: each is refused in one line, at once, and without memory to match the lie."""

from __future__ import annotations

import os
import pickle
import resource
import socket
import struct
import tracemalloc
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vissl_jointssl.manifest import Entry, Manifest, ManifestError
from vissl_jointssl.manifest.npy import map_npy

MEGABYTE = 2**20


def npy(header: str | bytes, version: tuple[int, int] = (1, 0), length: int | None = None, voxels: int = 64) -> bytes:
    text = header.encode("latin-1") if isinstance(header, str) else header
    size = len(text) if length is None else length
    return b"\x93NUMPY" + bytes(version) + struct.pack("<H" if version[0] == 1 else "<I", size) + text + b"\0" * voxels


def header(shape: object, descr: object = "<u2", order: object = False) -> str:
    return f"{{'descr': {descr!r}, 'fortran_order': {order!r}, 'shape': {shape!r}, }}\n"


def png(width: int, height: int, data: bytes, *more: tuple[bytes, bytes]) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = [(b"IHDR", head), *more, (b"IDAT", data), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


@pytest.fixture
def open_bytes(saved: Manifest, fault_of: Callable[..., str]) -> Callable[[bytes], str]:
    """Put bytes in place of the array; what opening it says, having taken next to no memory."""

    def check(content: bytes) -> str:
        (saved.root / "volumes" / "a.npy").write_bytes(content)
        tracemalloc.start()
        fault = fault_of(saved.open, saved.entries[0])
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 4 * MEGABYTE
        assert fault.startswith("volumes/a.npy (row 'a') cannot be read (")
        return fault

    return check


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "0 bytes; its header is not that of a .npy file"),
        (b"\x93NUMPY", "its header is not"),
        (b"\x93NUMPX\x01\x00", "its header is not"),
        (npy(header((2, 3, 4)), voxels=47), "its header claims 2x3x4 of uint16"),
        (npy(header((2**31, 3, 4))), "its header claims 2147483648x3x4 of uint16"),
        (npy(header((2**32, 2**32, 1))), "its header claims 4294967296x4294967296x1"),  # wraps to 0 in 64 bits
        (npy(header((10**4000, 1, 1))), "its header claims hugex1x1"),
        (npy(header((-2, 3, 4))), "its header claims the shape -2x3x4"),
        (npy(header((0, 3, 4))), "its header claims the shape 0x3x4"),
        (npy(header((2.0, 3, 4))), "its header is not"),
        (npy(header("2x3x4")), "its header is not"),
        (npy(header((2, 3, 4), order=3)), "its header is not"),
        (npy(header((2, 3, 4), descr="no type")), "its header is not"),
        (npy(header((2, 3, 4), descr="|O")), "it holds pickled Python objects; only plain numbers are opened"),
        (npy(header((2, 3, 4), descr="<c8")), "it holds values of type complex64"),
        (npy(header((2, 3, 4), descr="<U4")), "it holds values of type <U4"),
        (npy(header((2, 3, 4), descr=[("a", "<u2")])), "it holds values of type"),
        (npy("{'descr': '<u2'}\n"), "its header is not"),
        (npy("__import__('os').abort()\n"), "its header is not"),
        (npy("(" * 5000), "its header is not"),
        (npy("-" * 9000 + "1"), "its header is not"),
        (npy("x" + ".x" * 4000), "its header is not"),
        (npy("'" + "\n" * 5), "its header is not"),
        (npy(header((2, 3, 4)) + " " * 20_000), "its header is not"),
        (npy(header((2, 3, 4)), version=(2, 0), length=2**32 - 1), "its header is not"),
        (npy(header((2, 3, 4)), version=(3, 0)), "its header is not"),
        (npy(header((2, 3, 4)), version=(9, 9)), "its header is not"),
    ],
)
def test_a_header_that_lies_is_refused(open_bytes: Callable[[bytes], str], content: bytes, message: str) -> None:
    assert message in open_bytes(content)


def test_a_header_of_four_gigabytes_in_a_file_that_has_them_is_not_read(
    saved: Manifest, open_bytes: Callable[[bytes], str]
) -> None:
    start = npy(header((2, 3, 4)), version=(2, 0), length=2**32 - 100)
    path = saved.root / "volumes" / "a.npy"
    path.write_bytes(start)
    os.truncate(path, 2**32 + 100)  # sparse
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ManifestError, match="its header is not that of"):
        saved.open(saved.entries[0])
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024  # kilobytes


def test_a_pickle_in_an_array_file_is_not_run(saved: Manifest, open_bytes: Callable[[bytes], str]) -> None:
    trap = saved.root / "trap"

    class Payload:
        def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
            return Path.touch, (trap,)

    np.save(saved.root / "objects.npy", np.array([Payload()], dtype=object), allow_pickle=True)
    for content in ((saved.root / "objects.npy").read_bytes(), pickle.dumps(Payload())):
        open_bytes(content)
        assert not trap.exists()
    pickle.loads(pickle.dumps(Payload()))  # noqa: S301 - the trap itself works
    assert trap.exists()


def test_every_byte_that_turns_gives_an_array_or_one_clear_error(saved: Manifest) -> None:
    path = saved.root / "volumes" / "a.npy"
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    refused = 0
    for _ in range(600):
        content = bytearray(whole)
        for place in rng.integers(0, 128, size=rng.integers(1, 6)):
            content[place] = rng.integers(256)
        path.write_bytes(bytes(content))
        try:
            assert saved.open(saved.entries[0]).shape == (2, 3, 4)
        except ManifestError:
            refused += 1
    assert 300 < refused < 600


# --- what is no file


@pytest.mark.parametrize("name", ["a.npy", "a.png"])
@pytest.mark.parametrize("kind", ["folder", "pipe", "device", "socket", "circle", "missing"])
def test_what_is_no_file_is_refused_and_nothing_hangs(
    tmp_path: Path, save_row: Callable[..., Entry], fault_of: Callable[..., str], kind: str, name: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    path = tmp_path / name
    monkeypatch.chdir(tmp_path)  # the path of a socket has a short limit
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        os.mknod(path, 0o600 | 0o020000, os.makedev(1, 5))  # /dev/zero, which never ends
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(name)
    elif kind == "circle":
        path.symlink_to(name)
    entry = save_row(path=name)
    says = {
        "folder": "is a folder, not a file",
        "pipe": "is a pipe, a device or a socket, not a file",
        "device": "is a pipe, a device or a socket, not a file",
        "socket": "is a pipe, a device or a socket, not a file",
        "circle": "is no path (RuntimeError)",
        "missing": "does not exist",
    }
    fault = fault_of(Manifest(tmp_path / "manifest.csv", [entry]).open, entry)
    assert fault == f"{name} (row 'a') {says[kind]}"


def test_a_name_that_no_disk_holds_is_refused(
    tmp_path: Path, save_row: Callable[..., Entry], fault_of: Callable[..., str]
) -> None:
    for name in ("x" * 300 + ".npy", "x/" * 3000 + "a.npy", "a\0.npy"):
        entry = save_row(path=name)
        assert "is no path" in (fault := fault_of(Manifest(tmp_path / "manifest.csv", [entry]).open, entry)) or (
            "cannot be read (File name too long)" in fault
        )


def test_a_file_that_may_not_be_read_says_why(
    saved: Manifest, fault_of: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", "volumes/a.npy")

    monkeypatch.setattr(Path, "open", refuse)
    assert fault_of(saved.open, saved.entries[0]) == "volumes/a.npy (row 'a') cannot be read (Permission denied)"


# --- images


@pytest.fixture
def open_image(tmp_path: Path, save_row: Callable[..., Entry], fault_of: Callable[..., str]) -> Callable[..., str]:
    def check(content: bytes, shape: tuple[int, ...] = (3, 4), name: str = "x.png") -> str:
        (tmp_path / name).write_bytes(content)
        entry = save_row(kind="image", path=name, shape=shape, dtype="uint8")
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        fault = fault_of(Manifest(tmp_path / "manifest.csv", [entry]).open, entry)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024  # kilobytes
        return fault

    return check


def test_an_image_bomb_is_refused_by_its_header(open_image: Callable[..., str]) -> None:
    bomb = png(60_000, 60_000, zlib.compress(b"\0" * MEGABYTE))
    assert "unpack to more pixels than an image has" in open_image(bomb, (60_000, 60_000))


def test_an_image_of_another_size_than_its_row_says_is_not_unpacked(open_image: Callable[..., str]) -> None:
    large = png(12_000, 12_000, zlib.compress(b"\0" * (12_000 * 12_001)))
    assert "has 12000 x 12000 pixels, its row says 3 x 4" in open_image(large)


def test_a_text_bomb_in_an_image_is_refused(open_image: Callable[..., str]) -> None:
    text = b"note\0\0" + zlib.compress(b"A" * (80 * MEGABYTE))
    assert "no whole PNG or JPEG" in open_image(png(4, 3, zlib.compress(b"\0" * 15), (b"zTXt", text)))


@pytest.mark.parametrize("name", ["x.png", "x.jpg"])
def test_cut_images_are_refused(tmp_path: Path, open_image: Callable[..., str], name: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / f"whole-{name}")
    whole = (tmp_path / f"whole-{name}").read_bytes()
    for length in (0, 5, 20, len(whole) // 2, len(whole) * 9 // 10):
        fault = open_image(whole[:length], (30, 40), name)
        assert f"{name} (row 'a') cannot be read ({length} bytes; no whole PNG or JPEG" in fault


def test_another_format_under_the_name_of_a_png_is_refused(tmp_path: Path, open_image: Callable[..., str]) -> None:
    Image.new("L", (4, 3)).save(tmp_path / "x.tiff")
    assert "no whole PNG or JPEG: UnidentifiedImageError" in open_image((tmp_path / "x.tiff").read_bytes())
    assert "UnidentifiedImageError" in open_image(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 3\n")


def test_a_header_that_numpy_takes_for_python_2s_is_read_without_a_word(tmp_path: Path) -> None:
    path = tmp_path / "v.npy"
    path.write_bytes(npy(header((2, 3, 4)) + "   \n     "))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert map_npy(path).shape == (2, 3, 4)
