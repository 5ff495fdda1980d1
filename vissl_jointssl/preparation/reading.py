"""Scans and label maps from any volume format as slices with their spacing.

Each format has a decoder in `decoding`, which gives an array and an affine; one path turns these into `(F, H, W)`.
Whatever a decoder raises leaves here as a `ReadError`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from vissl_jointssl.preparation.decoding.decoded import Decoded
from vissl_jointssl.preparation.decoding.dicom import is_dicom, read_dicom_file, read_dicom_series
from vissl_jointssl.preparation.decoding.itk import ITK_SUFFIXES, read_itk
from vissl_jointssl.preparation.decoding.limits import COPY_AGAIN, check_claim
from vissl_jointssl.preparation.decoding.nifti import NIFTI_SUFFIXES, read_nifti
from vissl_jointssl.preparation.decoding.numpy_arrays import NUMPY_SUFFIXES, read_numpy
from vissl_jointssl.preparation.errors import ReadError, printable
from vissl_jointssl.preparation.processing.orientation import is_usable, to_slices
from vissl_jointssl.preparation.scan import Scan

VOLUME_SUFFIXES = NIFTI_SUFFIXES + ITK_SUFFIXES + NUMPY_SUFFIXES

_PAIRS = (".hdr", ".img", ".hdr.gz", ".img.gz")
_LARGEST = float(np.finfo(np.float32).max)
_ROUNDING = 1e-3  # label numbers that were scaled and back


def read_scan(
    path: Path, slice_axis: str = "axial", *, files: Sequence[Path] = (), channel_paths: Sequence[Path] = ()
) -> Scan:
    """Read a volume and refuse what cannot be trained on.

    Args:
        path: A NIfTI, MetaImage, NRRD, NumPy or multi-frame DICOM file, or a folder that holds one DICOM series.
        slice_axis: "axial", "coronal" or "sagittal"; see `orientation`.
        files: The slices of the series, where `path` is a folder that holds others as well.
        channel_paths: Files with the second and further channels, on the grid of the first.

    Returns:
        A scan of `(F, H, W)`; of `(C, F, H, W)` where the file has a fourth axis or there are `channel_paths`.

    Raises:
        ReadError: If a file cannot be decoded, is not one 3D volume, or holds NaN, infinities or one value only, or
            if a channel lies elsewhere than the first.
    """
    scan = _read(path, slice_axis, files)
    if channel_paths:
        return _joined(path, scan, channel_paths, slice_axis)
    volumes = scan.array if scan.array.ndim == 4 else scan.array[None]
    for number, volume in enumerate(volumes):
        _check_values(path, volume, f"in channel {number} " if len(volumes) > 1 else "")
    return scan


def read_labels(path: Path, like: Scan, slice_axis: str = "axial", *, by_voxel: bool = False) -> np.ndarray:
    """Read a label map that lies on the grid of a scan.

    Args:
        path: As for `read_scan`.
        like: The scan.
        slice_axis: As for `read_scan`.
        by_voxel: Put the voxels where the scan's are, for the file itself is known to say it wrong.

    Returns:
        `(F, H, W)` int32, the scan's shape without its channels.

    Raises:
        ReadError: As for `read_scan`; or if a value is not an integer, or shape or position differ from the scan's.
    """
    labels = _read(path, slice_axis, labels=True, place=like if by_voxel else None)
    off_grid = _off_grid(labels, like, "its scan")
    if off_grid is not None:
        raise ReadError(path, off_grid, "resample it to the scan's grid", "label_grid")
    array = labels.array
    if array.dtype.kind == "f":
        whole = np.rint(array)
        with np.errstate(invalid="ignore"):  # infinite minus infinite
            if not (np.abs(array - whole) <= _ROUNDING).all():
                next_step = "give a map of label numbers, not of probabilities"
                raise ReadError(path, "holds values that are not integers", next_step, "label_values")
        array = whole
    low, high, limits = array.min(), array.max(), np.iinfo(np.int32)
    if low < limits.min or high > limits.max:
        raise ReadError(
            path, f"holds label numbers from {low} to {high}", "use numbers from 0 to 65535", "label_values"
        )
    return array.astype(np.int32)


def _joined(path: Path, first: Scan, channel_paths: Sequence[Path], slice_axis: str) -> Scan:
    """Several files of one channel each as one scan."""
    other = f"the first channel, {printable(path.name)},"
    scans: list[Scan] = []
    for channel in (path, *channel_paths):
        check_claim(path, (1 + len(channel_paths), *first.array.shape), first.array.itemsize)
        scan = _read(channel, slice_axis) if scans else first
        if scan.array.ndim != 3:
            reason = f"is one file of several channels, and has {len(scan.array)} volumes itself"
            raise ReadError(channel, reason, "give files of one 3D volume each", "dimensions")
        _check_values(channel, scan.array)
        off_grid = _off_grid(scan, first, other)
        if off_grid is not None:
            code = "geometry" if scan.array.shape == first.array.shape else "dimensions"
            raise ReadError(channel, off_grid, "resample the channels of a scan to one grid", code)
        scans.append(scan)
    notes = tuple(dict.fromkeys(note for scan in scans for note in scan.notes))
    return replace(first, array=np.stack([scan.array for scan in scans]), notes=notes)


def _check_values(path: Path, volume: np.ndarray, where: str = "") -> None:
    with np.errstate(invalid="ignore"):
        low, high = volume.min(), volume.max()  # either is NaN where a voxel is
    if not (np.isfinite(low) and np.isfinite(high)):
        count = int((~np.isfinite(volume)).sum())
        next_step = "replace them by the background's value"
        raise ReadError(path, f"holds {count} NaN or infinite voxels {where}".rstrip(), next_step, "not_finite")
    if low == high:
        reason = f"{where}every voxel is {low}"
        raise ReadError(path, reason, "take it out of the folder: it shows nothing", "constant")
    if max(abs(float(low)), abs(float(high))) > _LARGEST:
        raise ReadError(path, f"holds values from {low:.1e} to {high:.1e} {where}".rstrip(), COPY_AGAIN, "intensity")


def _off_grid(scan: Scan, like: Scan, other: str) -> str | None:
    """Why a volume does not lie voxel by voxel on another's first three axes, or None if it does."""
    if scan.array.shape != like.grid_shape:
        return f"has {scan.array.shape} voxels, {other} {like.grid_shape}"
    if scan.geometry != like.geometry:
        known = {"place": "where its voxels lie", "spacing": "its spacing alone", "nothing": "no spacing or place"}
        return f"says {known[scan.geometry]}, {other} {known[like.geometry]}"
    corners = np.array([(f, h, w, 1) for f in (0, 1) for h in (0, 1) for w in (0, 1)]).T
    corners[:3] *= np.array(like.grid_shape)[:, None] - 1
    distance = float(np.abs(((scan.affine - like.affine) @ corners)[:3]).max())
    # half a voxel: rounding in headers is far below, a shifted grid above
    if distance > 0.5 * min(like.spacing or (1.0,)):
        return f"lies {distance:.1f} mm away from {other.rstrip(',')}"
    return None


def _read(
    path: Path, slice_axis: str, files: Sequence[Path] = (), *, labels: bool = False, place: Scan | None = None
) -> Scan:
    try:
        decoded = _decode(path, files, labels)
    except PermissionError:
        raise ReadError(path, "may not be read", "give yourself the right to read it (chmod)", "forbidden") from None
    except MemoryError:
        raise ReadError(path, "needs more memory than there is", "cut it to smaller volumes", "too_large") from None
    except OSError as error:
        raise ReadError(
            path, f"cannot be read ({type(error).__name__}: {error.strerror or 'no reason given'})", COPY_AGAIN
        ) from None
    if place is not None:
        decoded = replace(decoded, affine=place.source_affine, geometry=place.geometry)
    array, affine = decoded.array, decoded.affine
    if array.ndim not in (3, 4) or min(array.shape[:3]) < 2:
        raise ReadError(path, f"is not a 3D volume: it has shape {array.shape}", "give 3D volumes", "dimensions")
    if not is_usable(affine):
        reason = "says nothing usable about voxel size and position"
        raise ReadError(path, reason, "repair its header's affine", "geometry")
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    if array.dtype == np.float16:  # sums of it overflow
        array = array.astype(np.float32)
    first, second, third = array.shape[:3]
    if array.ndim == 4 and array.shape[3] == 1:
        array = array[..., 0]
    slices, affine = to_slices(array, affine, slice_axis)
    return Scan(
        slices, affine, decoded.affine, (first, second, third), decoded.modality, decoded.notes, decoded.geometry
    )


def _decode(path: Path, files: Sequence[Path], labels: bool) -> Decoded:
    name = path.name.lower()
    if path.is_dir():
        if name.endswith(VOLUME_SUFFIXES):
            raise ReadError(path, "is a folder, though it has the name of a file", "give the file that lies in it")
        return read_dicom_series(path, files)
    if not path.is_file():
        raise ReadError(path, "does not exist", "check the path in the recipe", "missing")
    if path.stat().st_size == 0:
        raise ReadError(path, "is empty (0 bytes)", COPY_AGAIN, "empty")
    if name.endswith(NIFTI_SUFFIXES):
        return read_nifti(path)
    if name.endswith(ITK_SUFFIXES):
        return read_itk(path)
    if name.endswith(NUMPY_SUFFIXES):
        return read_numpy(path, labels=labels)
    if name.endswith(_PAIRS):
        reason = "is Analyze, or one of a pair of NIfTI files, which are not read"
        raise ReadError(path, reason, "convert it to .nii.gz; Analyze does not say left from right", "unsupported")
    if is_dicom(path) or name.endswith(".dcm"):
        return read_dicom_file(path)
    known = ", ".join(VOLUME_SUFFIXES)
    next_step = f"convert it to one of {known}, or give a folder of DICOM files"
    raise ReadError(path, "is of an unknown kind", next_step, "unsupported")
