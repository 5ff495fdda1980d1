"""NIfTI-1 and NIfTI-2 in one file, plain or by gzip.

nibabel reads the header and scales; the voxels are read here, so that no more is unpacked than the header promises, and
gzip's checksum is compared, which nibabel stops short of. Extensions, which may name a patient, are passed over unread.
"""

from __future__ import annotations

import gzip
import logging
from pathlib import Path
from typing import Any

import numpy as np

from vissl_jointssl.preparation.decoding.decoded import Decoded
from vissl_jointssl.preparation.decoding.limits import (
    COPY_AGAIN,
    MAX_HEADER,
    check_claim,
    check_length,
    check_packed,
    read_voxels,
)
from vissl_jointssl.preparation.decoding.packed import BROKEN, broken
from vissl_jointssl.preparation.decoding.signatures import HEAD, found_instead
from vissl_jointssl.preparation.errors import ReadError
from vissl_jointssl.preparation.processing.orientation import is_usable

NIFTI_SUFFIXES = (".nii", ".nii.gz")

_GZIP = b"\x1f\x8b"
_SIZES = {348: "Nifti1Header", 540: "Nifti2Header"}
_NOT_PLAIN = (1, 32, 128, 1536, 1792, 2048, 2304)  # datatype: bit, complex64, RGB, float128, complex128 and 256, RGBA
_MILLIMETRES = {1: ("metres", 1e3), 3: ("micrometres", 1e-3)}  # xyzt_units; 0 and 2 are taken as they are
_QUIET = logging.Logger("headers", logging.CRITICAL + 1)  # nibabel logs what it mends, with words of the header


def read_nifti(path: Path) -> Decoded:
    """Voxels and affine of a file; axes of length one beyond the third are dropped.

    Raises:
        ReadError: If it is damaged, is one of a pair of files, or holds anything but plain numbers.
    """
    packed = path.name.lower().endswith(".gz")
    size = path.stat().st_size
    try:
        with path.open("rb") as raw:
            if packed != (raw.read(2) == _GZIP):
                raise _misnamed(path, packed)
            raw.seek(0)
            if not packed:
                return _read(path, raw, size, packed=False)
            with gzip.open(raw, "rb") as unpacked:
                return _read(path, unpacked, size, packed=True)
    except BROKEN as error:
        raise broken(path, error) from None


def _misnamed(path: Path, packed: bool) -> ReadError:
    if packed:
        with path.open("rb") as raw:
            found = found_instead(raw.read(HEAD))
        return ReadError(path, f"is named .gz, but {found}, not gzip", "give it the suffix of what it is")
    return ReadError(path, "is packed by gzip, but its name does not say so", "rename it to end in .nii.gz")


def _read(path: Path, stream: Any, size: int, packed: bool) -> Decoded:
    header = _header(path, stream.read(540))
    dimensions = [int(length) for length in header["dim"]]
    if not 1 <= dimensions[0] <= 7:
        raise ReadError(path, f"cannot be read: its header claims {dimensions[0]} axes", COPY_AGAIN)
    shape = tuple(dimensions[1 : dimensions[0] + 1])
    dtype = header.get_data_dtype()
    promised = check_claim(path, shape, dtype.itemsize)
    offset = header["vox_offset"]
    if not int(header["sizeof_hdr"]) <= offset <= MAX_HEADER:
        raise ReadError(path, "cannot be read: its header claims an impossible start of the voxels", COPY_AGAIN)
    offset = int(offset)
    if packed:
        check_packed(path, offset + promised, size)
    else:
        check_length(path, offset + promised, size)
    stream.seek(offset)
    array = read_voxels(path, stream, promised).view(dtype).reshape(shape, order="F")
    while array.ndim > 3 and 1 in array.shape[3:]:  # a vector is (i, j, k, 1, n), and a time axis often has length one
        array = array.squeeze(3 + array.shape[3:].index(1))
    affine, notes = _affine(path, header)
    return Decoded(_scaled(path, header, array), affine, notes=notes)


def _header(path: Path, block: bytes) -> Any:
    from nibabel import Nifti1Header, Nifti2Header
    from nibabel.spatialimages import HeaderDataError

    for order, mark in (("little", "<"), ("big", ">")):
        size = int.from_bytes(block[:4], order)  # type: ignore[arg-type]
        if size not in _SIZES:
            continue
        if len(block) < size:
            break
        magic = block[344:348] if size == 348 else block[4:8]
        if magic[:2] == b"ni" or (size == 348 and magic[:2] != b"n+"):
            reason = "is not a single-file NIfTI: it is Analyze, or one of a pair of .hdr and .img"
            raise ReadError(path, reason, "convert it to .nii.gz; Analyze does not say left from right", "unsupported")
        kind = Nifti1Header if size == 348 else Nifti2Header
        header = kind(block[:size], endianness=mark, check=False)
        if int(header["datatype"]) in _NOT_PLAIN:
            reason = "holds voxels that are not plain numbers, but bits, colours, complex or longer than 64 bits"
            raise ReadError(path, reason, "convert it to one number per voxel and channel", "unsupported")
        try:
            header.check_fix(logger=_QUIET, error_level=40)  # as nibabel.load does
        except HeaderDataError:
            break
        return header
    else:
        raise ReadError(path, f"cannot be read as NIfTI: it {found_instead(block)}", COPY_AGAIN)
    raise ReadError(path, "cannot be read as NIfTI: its header is damaged or cut short", COPY_AGAIN)


def _scaled(path: Path, header: Any, array: np.ndarray) -> np.ndarray:
    from nibabel.spatialimages import HeaderDataError
    from nibabel.volumeutils import apply_read_scaling

    try:
        slope, intercept = header.get_slope_inter()  # a slope of 0 or NaN means that there is none
    except HeaderDataError:
        slope, intercept = np.inf, 0.0
    if slope is None and np.isinf(header["scl_slope"]):
        slope = np.inf
    if slope is not None and not np.isfinite(slope):
        raise ReadError(path, "has a rescale slope or intercept that is not finite", COPY_AGAIN, "not_finite")
    exact = np.float32 if array.dtype.itemsize <= 2 else np.float64  # 24 bits of float32 hold all of 16
    with np.errstate(over="ignore", invalid="ignore"):  # infinite voxels are counted and refused later
        scaled = apply_read_scaling(
            array, None if slope is None else exact(slope), None if intercept is None else exact(intercept)
        )
    return np.asarray(scaled)


def _affine(path: Path, header: Any) -> tuple[np.ndarray, tuple[str, ...]]:
    """The affine that nibabel takes: sform, else qform, else the bare voxel sizes."""
    from nibabel.orientations import aff2axcodes
    from nibabel.spatialimages import HeaderDataError

    notes = []
    sform, qform = int(header["sform_code"]) != 0, int(header["qform_code"]) != 0
    with np.errstate(all="ignore"):  # numbers of a damaged header may overflow; `is_usable` finds it
        try:
            affine = np.array(header.get_best_affine(), dtype=float)
        except (HeaderDataError, ValueError):
            raise ReadError(path, "has no usable quaternion of orientation", "repair its header", "geometry") from None
        unit, factor = _MILLIMETRES.get(int(header["xyzt_units"]) & 7, ("", 1.0))
        affine[:3] *= factor
    if unit:
        notes.append(f"gives voxel sizes in {unit}, turned to mm")
    if not sform and not qform:
        notes.append("does not say how it is oriented; taken as right to left, back to front, foot to head")
    if sform and qform and is_usable(affine):
        try:
            other = np.array(header.get_qform(), dtype=float)
        except (HeaderDataError, ValueError):
            other = affine
        if is_usable(other) and aff2axcodes(other) != aff2axcodes(affine):
            notes.append("its sform and qform name different orientations; the sform is taken")
    return affine, tuple(notes)
