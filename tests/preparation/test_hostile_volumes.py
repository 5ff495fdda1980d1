"""Every volume format against damage and malice: one `ReadError` with a fitting code, in little memory and time."""

from __future__ import annotations

import gzip
import io
import os
import random
import resource
import subprocess
import sys
import time
import tracemalloc
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK

from vissl_jointssl.preparation.decoding import limits
from vissl_jointssl.preparation.errors import ReadError
from vissl_jointssl.preparation.reading import read_scan

ARRAY = np.random.default_rng(0).integers(-900, 900, (9, 8, 7)).astype(np.int16)
NAMES = (
    "a.nii",
    "b.nii.gz",
    "c.mha",
    "packed.mha",
    "d.mhd",
    "e.nrrd",
    "packed.nrrd",
    "f.nhdr",
    "g.npy",
    "h.npz",
    "packed.npz",
)
FAMILIES = {".mha": "MetaImage", ".mhd": "MetaImage", ".nrrd": "NRRD", ".nhdr": "NRRD", ".npz": "zip"}
ZEROS = bytes(2**20)


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def zipped(content: bytes, packing: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", packing) as archive:
        archive.writestr("image.npy", content)
    return stream.getvalue()


def make(path: Path) -> Path:
    """A sound file of the format that its name says."""
    if path.name.endswith((".nii", ".nii.gz")):
        nibabel.save(nibabel.Nifti1Image(ARRAY, np.diag([1.0, 2, 3, 1])), path)
    elif path.suffix == ".npy":
        path.write_bytes(npy(ARRAY))
    elif path.suffix == ".npz":
        path.write_bytes(zipped(npy(ARRAY), zipfile.ZIP_DEFLATED if "packed" in path.name else zipfile.ZIP_STORED))
    else:
        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(ARRAY), str(path), "packed" in path.name)
    return path


def code_of(path: Path) -> str:
    """The code of the one fault of a file, whose message is one line that names it; or "read"."""
    fault = None
    try:
        read_scan(path)
    except ReadError as error:
        fault = error
    if fault is None:
        return "read"
    assert len(str(fault).splitlines()) == 1
    assert fault.path.stem.startswith(path.stem) or fault.path == path
    return fault.code


@pytest.mark.parametrize("name", NAMES)
def test_empty_cut_and_garbled_files_are_refused(tmp_path, name):
    content = make(tmp_path / name).read_bytes()
    assert code_of(tmp_path / name) == "read"
    damages = {
        "nothing": (b"", "empty"),
        "a byte": (content[:1], "unreadable"),
        "half": (content[: len(content) // 2], "unreadable"),
        "99 %": (content[: int(len(content) * 0.99)], "unreadable"),
        "all but a byte": (content[:-1], "unreadable"),
        "noise": (np.random.default_rng(1).bytes(len(content)), "unreadable"),
        "zeros": (bytes(len(content)), "unreadable"),
        "a page": (b"<!DOCTYPE html><html>Please log in</html>" * 20, "unreadable"),
    }
    for damage, (spoilt, code) in damages.items():
        (tmp_path / name).write_bytes(spoilt)
        if name in ("d.mhd", "f.nhdr") and damage in ("99 %", "all but a byte"):
            assert code_of(tmp_path / name) in ("read", "missing", "unreadable")  # a line break less does no harm
        else:
            assert code_of(tmp_path / name) == code, damage


@pytest.mark.parametrize("name", ["d.mhd", "f.nhdr"])
def test_a_damaged_data_file_beside_a_header_is_refused(tmp_path, name):
    make(tmp_path / name)
    (data,) = (path for path in tmp_path.iterdir() if path.name != name)
    content = data.read_bytes()
    for spoilt in (b"", content[: len(content) // 2], content[:-1]):
        data.write_bytes(spoilt)
        assert code_of(tmp_path / name) == "unreadable"
    data.unlink()
    assert code_of(tmp_path / name) == "missing"


@pytest.mark.parametrize("name", NAMES)
def test_a_file_under_the_name_of_another_format_is_refused(tmp_path, name):
    for other in NAMES:
        if FAMILIES.get(Path(name).suffix, name) == FAMILIES.get(Path(other).suffix, other):
            continue
        content = make(tmp_path / other).read_bytes()
        (tmp_path / "wrong").mkdir(exist_ok=True)
        (tmp_path / "wrong" / name).write_bytes(content)
        assert code_of(tmp_path / "wrong" / name) == "unreadable", other


@cache
def endless(wbits: int) -> bytes:
    """64 MiB of zeros, packed to 64 KiB."""
    packer = zlib.compressobj(9, zlib.DEFLATED, wbits)
    return b"".join([*(packer.compress(ZEROS) for _ in range(64)), packer.flush()])


META = "NDims = 3\nElementSpacing = 1 1 1\nDimSize = {0} {1} {2}\nElementType = MET_SHORT\n"
NRRD = "NRRD0004\ntype: short\ndimension: 3\nsizes: {0} {1} {2}\nspacings: 1 1 1\nendian: little\n"
NPY = "{{'descr': '<i2', 'fortran_order': False, 'shape': ({0}, {1}, {2}), }}\n"


def claiming(shape: tuple[int, int, int]) -> dict[str, bytes]:
    """The start of a file of each format whose header claims a shape."""
    header = nibabel.Nifti2Image(np.ones((2, 2, 2), np.int16), np.eye(4)).header
    header["dim"][1:4], header["vox_offset"] = shape, 544
    text = NPY.format(*shape).encode()
    return {
        "nii": header.binaryblock + bytes(4),
        "mha": META.format(*shape).encode(),
        "nrrd": NRRD.format(*shape).encode(),
        "npz": b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text,
    }


def bomb(name: str, shape: tuple[int, int, int]) -> bytes:
    start = claiming(shape)[name.split(".")[1]]
    if name == "a.npz":
        return zipped(start + ZEROS * 64)
    if name == "a.mha":
        size = len(endless(15))
        fields = f"CompressedData = True\nCompressedDataSize = {size}\nElementDataFile = LOCAL\n"
        return start + fields.encode() + endless(15)
    if name == "a.nrrd":
        return start + b"encoding: gzip\n\n" + endless(31)
    return gzip.compress(start) + endless(31)


@pytest.mark.parametrize("name", ["a.nii.gz", "a.mha", "a.nrrd", "a.npz"])
@pytest.mark.parametrize(
    ("shape", "code"),
    [((8, 8, 8), "too_large"), ((2**11, 2**10, 2**10), "too_large"), ((1000, 1000, 1000), "unreadable")],
    ids=["small claim", "2^31 voxels", "more than it can hold"],
)
def test_a_bomb_is_stopped_within_bounds(tmp_path, name, shape, code):
    (tmp_path / name).write_bytes(bomb(name, shape))
    code_of(make(tmp_path / "warm.mha"))  # what the decoders themselves need is no concern here
    tracemalloc.start()
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    assert code_of(tmp_path / name) == code
    assert time.monotonic() - start < 5
    assert tracemalloc.get_traced_memory()[1] < 32 * 2**20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 2**10
    tracemalloc.stop()


@pytest.mark.parametrize(
    ("shape", "code"),
    [
        ((2**11, 2**10, 2**10), "too_large"),
        ((2**62, 2**62, 4), "too_large"),
        ((8, -8, 8), "unreadable"),
        ((8, 0, 8), "empty"),
    ],
)
def test_claims_of_impossible_sizes_are_refused_in_every_format(tmp_path, shape, code):
    starts = claiming(shape)
    files = {
        "a.nii": starts["nii"],
        "a.nii.gz": gzip.compress(starts["nii"]),
        "a.mha": starts["mha"] + b"ElementDataFile = LOCAL\n",
        "a.nrrd": starts["nrrd"] + b"encoding: raw\n\n",
        "a.npy": starts["npz"],
        "a.npz": zipped(starts["npz"]),
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content + bytes(100))
        assert code_of(tmp_path / name) == code, name


def test_the_cap_counts_all_channels(tmp_path, monkeypatch, save_nifti):
    monkeypatch.setattr(limits, "MAX_VOXELS", 2 * ARRAY.size)
    two, three = (np.stack([ARRAY + n for n in range(count)], -1) for count in (2, 3))
    assert code_of(save_nifti(tmp_path / "two.nii", two)) == "read"
    assert code_of(save_nifti(tmp_path / "three.nii", three)) == "too_large"
    one = save_nifti(tmp_path / "one.nii", ARRAY)
    assert read_scan(one, channel_paths=[one]).array.shape == (2, 7, 8, 9)
    with pytest.raises(ReadError, match="claims 3 x 7 x 8 x 9 voxels") as caught:
        read_scan(one, channel_paths=[one, one])
    assert caught.value.code == "too_large"


@pytest.mark.parametrize(
    "name", ["a b.nii", "été 日本.mha", "new\nline.nrrd", "tab\t.npy", os.fsdecode(b"J\xfcrg.nii.gz")]
)
def test_odd_names_are_read_and_shown_in_one_line(tmp_path, name):
    plain = make(tmp_path / ("x" + "".join(Path(name).suffixes[-2:] if name.endswith(".gz") else [Path(name).suffix])))
    path = plain.rename(tmp_path / name)
    np.testing.assert_array_equal(np.sort(read_scan(path).array, axis=None), np.sort(ARRAY, axis=None))
    path.write_bytes(b"spoilt")
    assert code_of(path) == "unreadable"


def test_folders_and_other_things_under_the_name_of_a_file_are_refused(tmp_path):
    for name in ("a.nii", "b.nii.gz", "c.mha", "d.npz"):
        (tmp_path / name).mkdir()
        with pytest.raises(ReadError, match=r"is a folder, though it has the name of a file. Next: give the file") as e:
            read_scan(tmp_path / name)
        assert e.value.code == "unreadable"
    os.mkfifo(tmp_path / "pipe.nii")
    (tmp_path / "loop.nii").symlink_to(tmp_path / "loop.nii")
    for name in ("pipe.nii", "loop.nii", "gone.nii", "x" * 300 + ".nii"):
        assert code_of(tmp_path / name) in ("missing", "unreadable")


@pytest.mark.parametrize("name", NAMES)
def test_what_may_not_be_read_is_forbidden(tmp_path, monkeypatch, name):
    make(tmp_path / name)
    opened = Path.open

    def refuse(path: Path, *args: object, **kwargs: object) -> object:
        if path == tmp_path / name:
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *args, **kwargs)

    monkeypatch.setattr(Path, "open", refuse)  # the tests run as root, who may read everything
    assert code_of(tmp_path / name) == "forbidden"


def test_a_failing_disk_and_a_full_memory_cost_one_file(tmp_path, monkeypatch):
    make(tmp_path / "a.nii")
    for raised, code in ((OSError(5, "Input/output error"), "unreadable"), (MemoryError(), "too_large")):

        def fail(*_: object, error: BaseException = raised) -> None:
            raise error

        monkeypatch.setattr("vissl_jointssl.preparation.reading.read_nifti", fail)
        assert code_of(tmp_path / "a.nii") == code


def mutated(content: bytes, draw: random.Random) -> bytes:
    """Content with a few bytes of its first 700 changed, cut out or put in."""
    changed = bytearray(content)
    for _ in range(draw.choice((1, 1, 2, 5))):
        at = draw.randrange(min(len(changed), 700))
        kind = draw.random()
        if kind < 0.6:
            changed[at] = draw.choice((draw.randrange(256), 0, 255, 127, 128, *b"-9 \n"))
        elif kind < 0.75:
            width = draw.choice((2, 4, 8))
            changed[at : at + width] = draw.choice((b"\xff", b"\x7f", b"\0")) * width
        elif kind < 0.85:
            del changed[at : at + draw.randrange(1, 20)]
        else:
            changed[at:at] = draw.choice((b"9999999", b"-1", b" ", b"\n", b"nan", b"1e99"))
    return bytes(changed)


PACKERS: dict[str, Callable[[bytes], bytes]] = {"b.nii.gz": lambda data: gzip.compress(data, 1), "h.npz": zipped}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", [*NAMES, "header in b.nii.gz", "header in h.npz"])
def test_a_mutated_header_is_read_or_refused_and_nothing_else(tmp_path, name):
    within, name = name.startswith("header in "), name.removeprefix("header in ")
    content = make(tmp_path / name).read_bytes()
    if within:
        content = make(tmp_path / {"b.nii.gz": "a.nii", "h.npz": "g.npy"}[name]).read_bytes()
    draw, codes = random.Random(0), Counter()
    for _ in range(50):
        spoilt = mutated(content, draw)
        (tmp_path / name).write_bytes(PACKERS[name](spoilt) if within else spoilt)
        codes[code_of(tmp_path / name)] += 1
    assert codes["unreadable"] > 5
    assert codes["forbidden"] == 0


def test_reading_imports_a_decoder_only_when_it_is_needed(tmp_path):
    make(tmp_path / "a.npy")
    code = (
        "import sys; from pathlib import Path; from vissl_jointssl.preparation.reading import read_scan; "
        "decoders = ('SimpleITK', 'pydicom', 'PIL', 'nibabel'); print([m for m in decoders if m in sys.modules]); "
        f"read_scan(Path({str(tmp_path / 'a.npy')!r})); print([m for m in decoders if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    before, after = result.stdout.splitlines()
    assert before == "[]"
    assert "SimpleITK" not in after
