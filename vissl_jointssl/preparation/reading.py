"""Scans and label maps from NIfTI, DICOM series, MetaImage and NRRD as slices with their spacing.

nibabel decodes NIfTI, SimpleITK the rest; both give an array and an affine, and one path turns these into
`(F, H, W)`. Whatever a decoder raises leaves here as a `ReadError`.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vissl_jointssl.preparation.dicom import read_dicom_series
from vissl_jointssl.preparation.errors import ReadError
from vissl_jointssl.preparation.itk import itk_affine, itk_array
from vissl_jointssl.preparation.orientation import spacing_of, to_slices

NIFTI_SUFFIXES = (".nii", ".nii.gz")
ITK_SUFFIXES = (".mha", ".mhd", ".nrrd")
_UNREADABLE = "copy it again from its source, or take it out of the folder"


@dataclass(frozen=True)
class Scan:
    """A volume in memory.

    Attributes:
        array: `(F, H, W)`, in the units of the file (HU for CT).
        affine: Index (f, h, w) to RAS mm, 4x4.
        modality: "CT", "MR", ... where the file says it (DICOM), or None.
    """

    array: np.ndarray
    affine: np.ndarray
    modality: str | None = None

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size along (F, H, W) in mm."""
        return spacing_of(self.affine)


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
    modality = None
    if path.is_dir():
        array, affine, modality = read_dicom_series(path)
    elif not path.is_file():
        raise ReadError(path, "does not exist", "check the path in the recipe")
    elif path.stat().st_size == 0:
        raise ReadError(path, "is empty (0 bytes)", _UNREADABLE)
    elif path.name.lower().endswith(NIFTI_SUFFIXES):
        array, affine = _read_nifti(path)
    elif path.name.lower().endswith(ITK_SUFFIXES):
        array, affine = _read_itk(path)
    else:
        known = ", ".join(NIFTI_SUFFIXES + ITK_SUFFIXES)
        raise ReadError(path, "is of an unknown kind", f"convert it to one of {known}, or give a folder of DICOM files")
    while array.ndim > 3 and array.shape[-1] == 1:  # NIfTI often keeps a time axis of length one
        array = array[..., 0]
    if array.ndim != 3 or min(array.shape) < 2:
        raise ReadError(path, f"is not a 3D volume: it has shape {array.shape}", "give one file per 3D volume")
    if not np.isfinite(affine).all() or min(spacing_of(affine)) <= 0:
        raise ReadError(path, "says nothing usable about voxel size and position", "repair its header's affine")
    slices, affine = to_slices(array, affine, slice_axis)
    return Scan(slices, affine, modality)


def _read_nifti(path: Path) -> tuple[np.ndarray, np.ndarray]:
    import nibabel
    from nibabel.filebasedimages import ImageFileError
    from nibabel.spatialimages import HeaderDataError

    try:
        image: Any = nibabel.load(path)
        array = np.asanyarray(image.dataobj)
    except (ImageFileError, HeaderDataError, EOFError, OSError, ValueError, OverflowError, zlib.error) as error:
        raise ReadError(path, f"cannot be read as NIfTI ({_first_line(error)})", _UNREADABLE) from None
    if array.dtype.kind not in "iuf":
        raise ReadError(path, f"holds voxels of type {array.dtype}, not plain numbers", "convert it to one channel")
    return array, np.asarray(image.affine, dtype=float)


def _read_itk(path: Path) -> tuple[np.ndarray, np.ndarray]:
    import SimpleITK

    try:
        image = SimpleITK.ReadImage(str(path))
    except RuntimeError as error:
        raise ReadError(path, f"cannot be read ({_first_line(error)})", _UNREADABLE) from None
    if image.GetNumberOfComponentsPerPixel() != 1 or image.GetDimension() != 3:
        shape = (*image.GetSize(), image.GetNumberOfComponentsPerPixel())
        raise ReadError(path, f"is not one 3D volume: size and channels are {shape}", "give one file per 3D volume")
    return itk_array(image), itk_affine(image)


def _first_line(error: Exception) -> str:
    """The last line that says something: SimpleITK puts the reason last, others have one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
