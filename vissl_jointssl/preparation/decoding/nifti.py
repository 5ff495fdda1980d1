"""NIfTI by nibabel."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np

from vissl_jointssl.preparation.decoding.decoded import Decoded
from vissl_jointssl.preparation.errors import ReadError, last_line

NIFTI_SUFFIXES = (".nii", ".nii.gz")


def read_nifti(path: Path) -> Decoded:
    """Voxels and affine of a file.

    Raises:
        ReadError: If it is damaged or holds anything but plain numbers.
    """
    import nibabel
    from nibabel.filebasedimages import ImageFileError
    from nibabel.spatialimages import HeaderDataError

    try:
        image: Any = nibabel.load(path)
        array = np.asanyarray(image.dataobj)
    except (ImageFileError, HeaderDataError, EOFError, OSError, ValueError, OverflowError, zlib.error) as error:
        raise ReadError(
            path,
            f"cannot be read as NIfTI ({last_line(error)})",
            "copy it again from its source, or take it out of the folder",
        ) from None
    if array.dtype.kind not in "iuf":
        raise ReadError(path, f"holds voxels of type {array.dtype}, not plain numbers", "convert it to one channel")
    return Decoded(array, np.asarray(image.affine, dtype=float))
