"""MetaImage and NRRD by SimpleITK, as arrays and affines in nibabel's convention."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from vissl_jointssl.preparation.decoding.decoded import Decoded
from vissl_jointssl.preparation.errors import ReadError, last_line

ITK_SUFFIXES = (".mha", ".mhd", ".nrrd")


def read_itk(path: Path) -> Decoded:
    """Voxels and affine of a file.

    Raises:
        ReadError: If it is damaged or not one 3D volume of one channel.
    """
    import SimpleITK

    try:
        image = SimpleITK.ReadImage(str(path))
    except RuntimeError as error:
        raise ReadError(
            path,
            f"cannot be read ({last_line(error)})",
            "copy it again from its source, or take it out of the folder",
        ) from None
    if image.GetNumberOfComponentsPerPixel() != 1 or image.GetDimension() != 3:
        shape = (*image.GetSize(), image.GetNumberOfComponentsPerPixel())
        raise ReadError(path, f"is not one 3D volume: size and channels are {shape}", "give one file per 3D volume")
    return Decoded(itk_array(image), itk_affine(image))


def itk_array(image: Any) -> np.ndarray:
    """Voxels indexed (i, j, k); SimpleITK's own arrays are (k, j, i)."""
    import SimpleITK

    return SimpleITK.GetArrayFromImage(image).transpose(2, 1, 0)


def itk_affine(image: Any) -> np.ndarray:
    """Index (i, j, k) to RAS mm, 4x4; ITK itself speaks LPS, so the first two rows change sign."""
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    affine[:2] *= -1
    return affine
