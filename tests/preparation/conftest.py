from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK


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
