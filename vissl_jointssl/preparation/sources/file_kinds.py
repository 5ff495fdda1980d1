"""What a file is by its name, and by its first bytes where the name does not say it; no voxel is read."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from vissl_jointssl.preparation.decoding.dicom import DICOM_SUFFIXES, is_dicom
from vissl_jointssl.preparation.decoding.images import IMAGE_SUFFIXES
from vissl_jointssl.preparation.decoding.itk import ITK_SUFFIXES
from vissl_jointssl.preparation.decoding.medmnist import splits_of
from vissl_jointssl.preparation.decoding.nifti import NIFTI_SUFFIXES
from vissl_jointssl.preparation.decoding.npz_members import HEADER_BYTES, parse_header
from vissl_jointssl.preparation.errors import ReadError


def kind_of(path: Path) -> str | None:
    """What a file is.

    Returns:
        "volume", "image", "dicom" (of which `group_series` says what it shows), "samples" (MedMNIST), or None for no
        scan. A damaged file is what its name says: its reader tells what is wrong with it.
    """
    name = path.name.lower()
    if name.endswith(IMAGE_SUFFIXES):
        return "image"
    if name.endswith((*NIFTI_SUFFIXES, *ITK_SUFFIXES)) or _is_analyze(path):
        return "volume"
    if name.endswith(".npy"):
        return _array_kind(path)
    if name.endswith(".npz"):
        return "samples" if _has_samples(path) else "volume"
    if name.endswith(DICOM_SUFFIXES) or name == "dicomdir" or is_dicom(path):
        return "dicom"
    return None


def _array_kind(path: Path) -> str:
    """`(H, W)` and `(H, W, 3)` uint8 are images."""
    try:
        with path.open("rb") as file:
            shape, _, dtype, _ = parse_header(file.read(HEADER_BYTES))
    except (OSError, ValueError):
        return "volume"
    colour = len(shape) == 3 and shape[2] == 3 and dtype == np.uint8
    return "image" if colour or (len(shape) == 2 and math.prod(shape) > 0) else "volume"


def _has_samples(path: Path) -> bool:
    try:
        return bool(splits_of(path))
    except ReadError:
        return False


def _is_analyze(path: Path) -> bool:
    """A `.hdr` beside an `.img`, of which the reader says how to convert it; others are no scans."""
    return path.suffix.lower() == ".hdr" and path.with_suffix(".img").is_file()
