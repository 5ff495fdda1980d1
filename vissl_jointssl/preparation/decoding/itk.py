"""MetaImage and NRRD by SimpleITK, as arrays and affines in nibabel's convention."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from vissl_jointssl.preparation.decoding.decoded import Decoded
from vissl_jointssl.preparation.decoding.limits import COPY_AGAIN
from vissl_jointssl.preparation.decoding.metaimage_header import read_metaimage_header
from vissl_jointssl.preparation.decoding.nrrd_header import read_nrrd_header
from vissl_jointssl.preparation.decoding.text_header import Promise
from vissl_jointssl.preparation.errors import ReadError

_META = (".mha", ".mhd")
ITK_SUFFIXES = (*_META, ".nrrd", ".nhdr")

_NOTES = {
    "place": (),
    "spacing": ("does not say how it is oriented; taken as right to left, front to back, foot to head",),
    "nothing": ("says nothing of spacing and orientation; taken as axial slices, foot to head",),
}


def read_itk(path: Path) -> Decoded:
    """Voxels and affine of a file; several numbers per voxel, or a fourth axis, become the array's fourth.

    Raises:
        ReadError: If it is damaged, names a data file outside its folder, or has more than four axes.
    """
    promise = read_metaimage_header(path) if path.suffix.lower() in _META else read_nrrd_header(path)
    axes = len(promise.shape) + (promise.channels > 1)
    if not 3 <= len(promise.shape) <= 4 or axes > 4:
        shape = (*promise.shape, promise.channels) if promise.channels > 1 else promise.shape
        raise ReadError(path, f"is not one 3D volume: size and channels are {shape}", "give 3D volumes", "dimensions")
    if not _is_text(path):
        return _read_under_another_name(path, promise)
    return _read(path, path, promise)


def _read(path: Path, opened: Path, promise: Promise) -> Decoded:
    import SimpleITK

    reader = SimpleITK.ImageFileReader()
    reader.SetImageIO("MetaImageIO" if path.suffix.lower() in _META else "NrrdImageIO")
    reader.SetFileName(str(opened))
    try:
        reader.ReadImageInformation()
        found = (tuple(reader.GetSize()), reader.GetNumberOfComponents())
        if found != (promise.shape, promise.channels):
            raise ReadError(path, "cannot be read: ITK understands its header otherwise", COPY_AGAIN)
        image = reader.Execute()
        array, affine = itk_array(image), itk_affine(image)
    except (RuntimeError, TypeError):  # ITK's words may quote the header
        raise ReadError(path, "cannot be read: SimpleITK finds it damaged or cut short", COPY_AGAIN) from None
    if array.dtype.kind not in "iuf":
        raise ReadError(path, "holds complex numbers", "convert it to one number per voxel and channel", "unsupported")
    return Decoded(array, affine, notes=_NOTES[promise.geometry], geometry=promise.geometry)


def _read_under_another_name(path: Path, promise: Promise) -> Decoded:
    """SimpleITK ends the whole process on a name that is not UTF-8."""
    if promise.data_path != path:
        reason = "has a name that is not UTF-8, and its voxels in another file"
        raise ReadError(path, reason, "rename it", "unsupported")
    with tempfile.TemporaryDirectory() as folder:
        link = Path(folder) / f"scan{path.suffix}"
        link.symlink_to(path.absolute())
        return _read(path, link, promise)


def _is_text(path: Path) -> bool:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def itk_array(image: Any) -> np.ndarray:
    """Voxels indexed (i, j, k) or (i, j, k, n); SimpleITK's own arrays are (k, j, i), (k, j, i, n) or (n, k, j, i)."""
    import SimpleITK

    array = SimpleITK.GetArrayFromImage(image)
    if image.GetNumberOfComponentsPerPixel() > 1:
        return array.transpose(2, 1, 0, 3)
    return array.transpose()


def itk_affine(image: Any) -> np.ndarray:
    """Index (i, j, k) to RAS mm, 4x4; ITK itself speaks LPS, so the first two rows change sign."""
    axes = image.GetDimension()
    affine = np.eye(4)
    directions = np.array(image.GetDirection()).reshape(axes, axes)[:3, :3]
    affine[:3, :3] = directions * np.array(image.GetSpacing())[:3]
    affine[:3, 3] = image.GetOrigin()[:3]
    affine[:2] *= -1
    return affine
