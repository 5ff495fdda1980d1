from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid


@pytest.fixture
def make_volume() -> Callable[..., np.ndarray]:
    """A CT-like (i, j, k) array: a body of about 40 HU with texture in air of -1000 HU."""

    def make(shape: tuple[int, int, int] = (10, 9, 8), seed: int = 0) -> np.ndarray:
        rng = np.random.default_rng(seed)
        array = np.full(shape, -1000, np.int16)
        inside = tuple(slice(1, length - 1) for length in shape)
        array[inside] = 40 + rng.integers(-30, 30, array[inside].shape)
        return array

    return make


@pytest.fixture
def save_nifti() -> Callable[..., Path]:
    def save(path: Path, array: np.ndarray, affine: np.ndarray | None = None) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        nibabel.save(nibabel.Nifti1Image(array, np.diag([1.0, 1, 1, 1]) if affine is None else affine), path)
        return path

    return save


@pytest.fixture
def save_dicom() -> Callable[..., Path]:
    """Write values (k, j, i) as DICOM slices: stored with an offset of 1024, named in another order than they lie."""

    def save(
        folder: Path,
        array: np.ndarray,
        spacing: tuple[float, float, float] = (1.0, 1.0, 2.0),
        positions: list[float] | None = None,
        series: str = "1.2.3.4.5",
        modality: str = "CT",
    ) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        writer = SimpleITK.ImageFileWriter()
        writer.KeepOriginalImageUIDOn()
        for number, plane in enumerate(array):
            image = SimpleITK.GetImageFromArray(plane.astype(np.int16))
            image.SetSpacing(spacing[:2])
            position = positions[number] if positions is not None else number * spacing[2]
            tags = {
                "0008|0060": modality,
                "0010|0010": "DOE^JANE",
                "0010|0020": "ID-77",
                "0020|000e": series,
                "0008|0018": f"{series}.{number + 1}",
                "0020|0032": f"0\\0\\{position}",
                "0020|0037": "1\\0\\0\\0\\1\\0",
                "0018|0050": str(spacing[2]),
                "0028|1052": "-1024",
                "0028|1053": "1",
            }
            for tag, value in tags.items():
                image.SetMetaData(tag, value)
            writer.SetFileName(str(folder / f"{(number * 7) % len(array):03d}-{series[-1]}.dcm"))
            writer.Execute(image)
        return folder

    return save


@pytest.fixture
def save_slice() -> Callable[..., Path]:
    """Write stored values (H, W), (H, W, 3) or (n, H, W) as one DICOM file, byte for byte, with any further tags.

    `syntax` is the transfer syntax: its UID, or None for explicit little endian. Tags given as None are left out.
    """

    def save(path: Path, stored: np.ndarray, syntax: str | None = None, **tags: object) -> Path:
        header = Dataset()
        colour = stored.ndim == 3 and stored.shape[-1] == 3
        frames = 1 if stored.ndim == 2 or colour else len(stored)
        rows, columns = stored.shape[:2] if frames == 1 and (stored.ndim == 2 or colour) else stored.shape[1:]
        bits = stored.dtype.itemsize * 8
        values = {
            "SOPClassUID": "1.2.840.10008.5.1.4.1.1.7",
            "SOPInstanceUID": generate_uid(),
            "SeriesInstanceUID": "1.2.3.4",
            "Modality": "CT",
            "Rows": rows,
            "Columns": columns,
            "SamplesPerPixel": 3 if colour else 1,
            "PhotometricInterpretation": "RGB" if colour else "MONOCHROME2",
            "BitsAllocated": bits,
            "BitsStored": bits,
            "HighBit": int(str(tags.get("BitsStored", bits))) - 1,
            "PixelRepresentation": int(stored.dtype.kind == "i"),
        }
        if colour:
            values["PlanarConfiguration"] = 0
        if frames > 1:
            values["NumberOfFrames"] = frames
        for keyword, value in {**values, **tags}.items():
            if value is not None:
                setattr(header, keyword, value)
        header.file_meta = FileMetaDataset()
        header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        header.PixelData = stored.astype(stored.dtype.newbyteorder("<")).tobytes()
        header["PixelData"].VR = "OW"
        if syntax is not None:
            header.file_meta.TransferSyntaxUID = syntax
        path.parent.mkdir(parents=True, exist_ok=True)
        header.save_as(path, enforce_file_format=True)
        return path

    return save
