"""A folder of DICOM files as one volume: order by position, never by file name.

SimpleITK decodes (GDCM knows the compressed transfer syntaxes); pydicom reads the few geometry tags that are checked
first. No other header text is looked at, so none can leak.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vissl_jointssl.preparation.decoding.decoded import Decoded
from vissl_jointssl.preparation.decoding.itk import itk_affine, itk_array
from vissl_jointssl.preparation.errors import ReadError

_MAGIC_AT, _MAGIC = 128, b"DICM"


def is_dicom(path: Path) -> bool:
    """Whether a file carries DICOM's magic word; the name says nothing, most scanners write no suffix."""
    try:
        with path.open("rb") as file:
            file.seek(_MAGIC_AT)
            return file.read(len(_MAGIC)) == _MAGIC
    except OSError:
        return False


def read_dicom_series(folder: Path) -> Decoded:
    """Read the one series of a folder.

    Returns:
        Voxels (i, j, k) after rescaling (HU for CT), their affine, and the modality that the files state.

    Raises:
        ReadError: If the folder holds no series or several, slices are missing or doubled, or a file is damaged.
    """
    import SimpleITK

    reader = SimpleITK.ImageSeriesReader()
    series = reader.GetGDCMSeriesIDs(str(folder))
    if not series:
        raise ReadError(folder, "holds no DICOM series", "give a folder whose files are the slices of one scan")
    if len(series) > 1:
        raise ReadError(folder, f"holds {len(series)} DICOM series", "move each series to a folder of its own")
    files = reader.GetGDCMSeriesFileNames(str(folder), series[0])
    modality = _check_geometry(folder, [Path(file) for file in files])
    reader.SetFileNames(files)
    try:
        image = reader.Execute()
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise ReadError(folder, f"a slice cannot be decoded ({reason})", "copy the series again") from None
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        raise ReadError(folder, "is not a grey 3D series", "take colour and multi-frame captures out of the folder")
    return Decoded(itk_array(image), itk_affine(image), modality)


def _check_geometry(folder: Path, files: list[Path]) -> str | None:
    """Raise unless the slices lie at even distances; return the modality."""
    import pydicom
    from pydicom.errors import InvalidDicomError

    tags = ["ImagePositionPatient", "ImageOrientationPatient", "Modality"]
    positions, modality = [], None
    for file in files:
        try:
            header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=tags)
            axes = np.array(header.ImageOrientationPatient, dtype=float)
            positions.append(float(np.cross(axes[:3], axes[3:]) @ np.array(header.ImagePositionPatient, dtype=float)))
        except (InvalidDicomError, AttributeError, ValueError, TypeError, OSError) as error:
            reason = f"{file.name} has no usable position ({error})"
            raise ReadError(folder, reason, "give the slices of a CT or MR series only") from None
        modality = str(header.get("Modality", "")) or None
    steps = np.diff(np.sort(positions))
    if len(steps) == 0:
        raise ReadError(folder, "holds one slice, not a 3D volume", "give the folder of the whole series")
    usual = float(np.median(steps))
    if usual <= 0 or float(np.abs(steps - usual).max()) > 0.1 * usual:
        reason = f"slice distances run from {steps.min():.2f} to {steps.max():.2f} mm"
        raise ReadError(folder, reason, "look for missing or doubled slices, or for a localizer among them")
    return modality
