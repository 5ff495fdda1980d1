"""Arrays of NumPy: `.npy`, and `.npz` with one scan.

An `.npz` holds one array, or one named "image" or "array" ("labels" for a label map), and may hold beside it

* `affine`: 4x4, index of the array's last three axes to RAS mm; or
* `spacing`: (3,), mm along the last three axes.

Without an affine, the axes are taken as `(F, H, W)` or `(C, F, H, W)` of axial slices, foot to head, front to back and
right to left, as preparation writes them. Without a spacing too, none is made up: a millimetre would be a lie.
Pickled objects run code when they are opened, so they are not.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from vissl_jointssl.manifest.npy_header import NPY_MAGIC, NpyHeader, NpyHeaderError, read_npy_header
from vissl_jointssl.preparation.decoding.decoded import Decoded, Geometry
from vissl_jointssl.preparation.decoding.limits import (
    COPY_AGAIN,
    check_claim,
    check_length,
    check_packed,
    read_voxels,
)
from vissl_jointssl.preparation.decoding.signatures import HEAD, found_instead
from vissl_jointssl.preparation.errors import ReadError
from vissl_jointssl.preparation.processing.orientation import AS_AXIAL_SLICES

NUMPY_SUFFIXES = (".npy", ".npz")

_MAX_MEMBERS = 64
_GEOMETRY = ("affine", "spacing")
_NAMES = {False: ("image", "array"), True: ("labels", "image", "array")}
_BAD_ZIP = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, struct.error, ValueError)
_NO_GEOMETRY = {
    "place": (),
    "spacing": ("does not say how it is oriented; its axes are taken as (F, H, W) of axial slices",),
    "nothing": ("says nothing of spacing and orientation; its axes are taken as (F, H, W) of axial slices",),
}


def read_numpy(path: Path, *, labels: bool = False) -> Decoded:
    """The volume of an `.npy` or `.npz` file.

    Args:
        path: The file.
        labels: Prefer the array named "labels" of an `.npz`.

    Raises:
        ReadError: If it is damaged, holds pickled objects or anything but numbers, or several arrays of which none
            is named as above.
    """
    found = {"": read_npy_array(path)} if path.suffix.lower() == ".npy" else _read_npz(path, _NAMES[labels])
    affine, geometry = _affine(path, found)
    array = next(value for name, value in found.items() if name not in _GEOMETRY)
    if array.ndim == 4:
        array = np.moveaxis(array, 0, -1)
    return Decoded(array, affine, notes=_NO_GEOMETRY[geometry], geometry=geometry)


def read_npy_array(path: Path) -> np.ndarray:
    """The array of an `.npy` file: numbers of any shape; bool becomes uint8.

    Raises:
        ReadError: If it is damaged, cut short, larger than a volume may be, or holds anything but numbers.
    """
    with path.open("rb") as stream:
        return _read_array(path, stream, path.stat().st_size, packed=None)


def _read_array(path: Path, stream: BinaryIO, present: int, packed: int | None) -> np.ndarray:
    """An array from a stream of `present` bytes, that takes `packed` bytes in the file, or None if not packed."""
    shape, fortran, dtype = _npy_header(path, stream)
    promised = check_claim(path, shape, dtype.itemsize)
    if packed is not None:
        check_packed(path, promised, packed)
    check_length(path, promised, present - stream.tell())
    array = read_voxels(path, stream, promised).view(dtype).reshape(shape, order="F" if fortran else "C")
    return array.astype(np.uint8) if dtype.kind == "b" else array


def _npy_header(path: Path, stream: BinaryIO) -> NpyHeader:
    magic = stream.read(len(NPY_MAGIC))
    if magic != NPY_MAGIC:
        found = found_instead(magic + stream.read(HEAD - len(magic)))
        raise ReadError(path, f"cannot be read as a NumPy array: it {found}", COPY_AGAIN)
    try:
        header = read_npy_header(stream)
    except NpyHeaderError as error:
        raise ReadError(path, f"cannot be read: {error}", COPY_AGAIN) from None
    dtype = header.dtype
    if dtype.hasobject:
        reason = "holds pickled Python objects, which run code when they are opened"
        raise ReadError(path, reason, "save it again as an array of numbers", "unsupported")
    if dtype.kind not in "biuf" or not 1 <= dtype.itemsize <= 8:
        reason = "holds values that are not plain numbers of up to 64 bits"
        raise ReadError(path, reason, "save it again as an array of numbers", "unsupported")
    return header


def _read_npz(path: Path, wanted: tuple[str, ...]) -> dict[str, np.ndarray]:
    with path.open("rb") as raw:
        try:
            with zipfile.ZipFile(raw) as archive:
                members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
                if len(archive.infolist()) > _MAX_MEMBERS or len(members) < len(archive.infolist()):
                    raise ReadError(path, "holds too many arrays, or two of one name", COPY_AGAIN, "unsupported")
                name = _chosen(path, members, wanted)
                chosen = [name, *(key for key in _GEOMETRY if key in members)]
                return {key: _read_member(path, archive, members[key]) for key in chosen}
        except ReadError:  # is a ValueError itself
            raise
        except _BAD_ZIP as error:
            raw.seek(0)
            head = raw.read(HEAD)
            found = "" if head.startswith(b"PK") else f" and {found_instead(head)}"
            reason = f"cannot be read: it is no sound .npz{found} ({type(error).__name__})"
            raise ReadError(path, reason, COPY_AGAIN) from None


def _chosen(path: Path, members: dict[str, zipfile.ZipInfo], wanted: tuple[str, ...]) -> str:
    arrays = [name for name in members if name not in _GEOMETRY]
    named = [name for name in wanted if name in members]
    if named:
        return named[0]
    if len(arrays) != 1:
        reason = f"holds {len(arrays)} arrays and none named {' or '.join(wanted)}"
        next_step = "name the scan's array image; give a MedMNIST file by itself to `jointssl prepare`"
        raise ReadError(path, reason, next_step, "unsupported" if arrays else "empty")
    return arrays[0]


def _read_member(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    if info.flag_bits & 1 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ReadError(path, "holds an array that is encrypted or oddly packed", "save it again", "unsupported")
    with archive.open(info) as member:
        return _read_array(path, cast(BinaryIO, member), info.file_size, info.compress_size)


def _affine(path: Path, found: dict[str, np.ndarray]) -> tuple[np.ndarray, Geometry]:
    affine, spacing = found.get("affine"), found.get("spacing")
    if affine is not None and spacing is not None:
        raise ReadError(path, "holds an affine and a spacing", "keep one of them", "geometry")
    if affine is not None:
        return _checked(path, "affine", affine, (4, 4)), "place"
    if spacing is not None:
        sizes = _checked(path, "spacing", spacing, (3,))
        return AS_AXIAL_SLICES @ np.diag([*sizes, 1.0]), "spacing"
    return AS_AXIAL_SLICES, "nothing"


def _checked(path: Path, name: str, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if array.shape != shape or (name == "spacing" and not (np.isfinite(array).all() and array.min() > 0)):
        reason = f"its {name} is not {' x '.join(map(str, shape))} numbers of mm"
        raise ReadError(path, reason, f"save the {name} again", "geometry")
    return array.astype(float)
