from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import nibabel
import numpy as np
import pytest


@pytest.fixture
def touch() -> Callable[[Path], Path]:
    """An empty file, for recipes, which look at names alone."""

    def make(path: Path) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        return path

    return make


@pytest.fixture
def write_nifti() -> Callable[..., np.ndarray]:
    """Write a scan of texture, or a label map: plane i has the i-th of `labels`, the rest 0; gives the array."""

    def write(
        path: Path,
        shape: tuple[int, ...] = (6, 5, 4),
        labels: Sequence[int] = (),
        affine: np.ndarray | None = None,
    ) -> np.ndarray:
        array = np.random.default_rng(sum(map(ord, path.name))).integers(-200, 300, shape).astype(np.int16)
        if labels:
            array = np.zeros(shape, np.int16)
            array[: len(labels)] = np.array(labels).reshape(-1, *[1] * (len(shape) - 1))
        path.parent.mkdir(parents=True, exist_ok=True)
        nibabel.save(nibabel.Nifti1Image(array, np.eye(4) if affine is None else affine), path)
        return array

    return write
