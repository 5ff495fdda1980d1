"""Scans and label maps from any volume format as slices with their spacing.

Each format has a decoder in `decoding`, which gives an array and an affine; one path turns these into `(F, H, W)`.
Whatever a decoder raises leaves here as a `ReadError`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vissl_jointssl.preparation.decoding.dicom import read_dicom_series
from vissl_jointssl.preparation.decoding.itk import ITK_SUFFIXES, read_itk
from vissl_jointssl.preparation.decoding.nifti import NIFTI_SUFFIXES, read_nifti
from vissl_jointssl.preparation.errors import ReadError
from vissl_jointssl.preparation.orientation import spacing_of, to_slices
from vissl_jointssl.preparation.scan import Scan

_UNREADABLE = "copy it again from its source, or take it out of the folder"


def read_scan(path: Path, slice_axis: str = "axial") -> Scan:
    """Read a volume and refuse what cannot be trained on.

    Args:
        path: A NIfTI, MetaImage or NRRD file, or a folder that holds one DICOM series.
        slice_axis: "axial", "coronal" or "sagittal"; see `orientation`.

    Raises:
        ReadError: If the file cannot be decoded, is not one 3D volume, or holds NaN, infinities or one value only.
    """
    scan = _read(path, slice_axis)
    if scan.array.dtype.kind == "f" and not np.isfinite(scan.array).all():
        count = int((~np.isfinite(scan.array)).sum())
        raise ReadError(path, f"holds {count} NaN or infinite voxels", "replace them by the background's value")
    if scan.array.min() == scan.array.max():
        raise ReadError(path, f"every voxel is {scan.array.flat[0]}", "take it out of the folder: it shows nothing")
    return scan


def read_labels(path: Path, like: Scan, slice_axis: str = "axial") -> np.ndarray:
    """Read a label map that lies on the grid of a scan.

    Returns:
        `(F, H, W)` int32, the scan's shape.

    Raises:
        ReadError: As for `read_scan`; or if a value is not an integer, or shape or position differ from the scan's.
    """
    labels = _read(path, slice_axis)
    if labels.array.shape != like.array.shape:
        raise ReadError(
            path, f"has {labels.array.shape} voxels, its scan {like.array.shape}", "resample it to the scan's grid"
        )
    corners = np.array([(f, h, w, 1) for f in (0, 1) for h in (0, 1) for w in (0, 1)]).T
    corners[:3] *= np.array(like.array.shape)[:, None] - 1
    distance = float(np.abs(((labels.affine - like.affine) @ corners)[:3]).max())
    if distance > 0.5 * min(like.spacing):  # half a voxel: rounding in headers is far below, a shifted grid above
        raise ReadError(path, f"lies {distance:.1f} mm away from its scan", "resample it to the scan's grid")
    if labels.array.dtype.kind not in "iu" and not np.array_equal(labels.array, np.rint(labels.array)):
        raise ReadError(path, "holds values that are not integers", "give a map of label numbers, not of probabilities")
    return np.rint(labels.array).astype(np.int32)


def _read(path: Path, slice_axis: str) -> Scan:
    if path.is_dir():
        decoded = read_dicom_series(path)
    elif not path.is_file():
        raise ReadError(path, "does not exist", "check the path in the recipe")
    elif path.stat().st_size == 0:
        raise ReadError(path, "is empty (0 bytes)", _UNREADABLE)
    elif path.name.lower().endswith(NIFTI_SUFFIXES):
        decoded = read_nifti(path)
    elif path.name.lower().endswith(ITK_SUFFIXES):
        decoded = read_itk(path)
    else:
        known = ", ".join(NIFTI_SUFFIXES + ITK_SUFFIXES)
        raise ReadError(path, "is of an unknown kind", f"convert it to one of {known}, or give a folder of DICOM files")
    array, affine = decoded.array, decoded.affine
    while array.ndim > 3 and array.shape[-1] == 1:  # NIfTI often keeps a time axis of length one
        array = array[..., 0]
    if array.ndim != 3 or min(array.shape) < 2:
        raise ReadError(path, f"is not a 3D volume: it has shape {array.shape}", "give one file per 3D volume")
    if not np.isfinite(affine).all() or min(spacing_of(affine)) <= 0:
        raise ReadError(path, "says nothing usable about voxel size and position", "repair its header's affine")
    slices, affine = to_slices(array, affine, slice_axis)
    first, second, third = array.shape
    return Scan(slices, affine, decoded.affine, (first, second, third), decoded.modality, decoded.notes)
