"""A volume in memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vissl_jointssl.preparation.orientation import spacing_of


@dataclass(frozen=True)
class Scan:
    """A volume as slices, in the units of its file (HU for CT).

    Attributes:
        array: `(F, H, W)`, or `(C, F, H, W)` with several channels or points in time.
        affine: Index (f, h, w) to RAS mm, 4x4.
        source_affine: Index (i, j, k) of the file to RAS mm, 4x4.
        source_shape: (i, j, k) of the file, without channels.
        modality: "CT", "MR", ... where the file says it (DICOM), or None.
        notes: What a person should know and training can live with, in words for the log.
    """

    array: np.ndarray
    affine: np.ndarray
    source_affine: np.ndarray
    source_shape: tuple[int, int, int]
    modality: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size along (F, H, W) in mm."""
        return spacing_of(self.affine)
