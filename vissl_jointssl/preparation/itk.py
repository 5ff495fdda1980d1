"""A SimpleITK image as an array and an affine in nibabel's convention."""

from __future__ import annotations

from typing import Any

import numpy as np


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
