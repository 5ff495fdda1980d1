"""A volume in memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vissl_jointssl.preparation.decoding.decoded import Geometry
from vissl_jointssl.preparation.processing.orientation import spacing_of


@dataclass(frozen=True)
class Scan:
    """A volume as slices, in the units of its file (HU for CT).

    Attributes:
        array: `(F, H, W)`, or `(C, F, H, W)` with several channels or points in time.
        affine: Index (f, h, w) to RAS mm, 4x4; in voxels instead of mm where `spacing` is None.
        source_affine: Index (i, j, k) of the file to RAS mm, 4x4; in voxels as well where `spacing` is None.
        source_shape: (i, j, k) of the file, without channels.
        modality: "CT", "MR", ... where the file says it (DICOM), or None.
        notes: What a person should know and training can live with, in words for the log.
        geometry: What the file says: the "place" of each voxel, their "spacing" only, or "nothing". A bare `.npy`
            says nothing; its axes are taken as (F, H, W) of axial slices.
    """

    array: np.ndarray
    affine: np.ndarray
    source_affine: np.ndarray
    source_shape: tuple[int, int, int]
    modality: str | None = None
    notes: tuple[str, ...] = ()
    geometry: Geometry = "place"

    @property
    def spacing(self) -> tuple[float, float, float] | None:
        """Voxel size along (F, H, W) in mm; None where the file does not say it."""
        return None if self.geometry == "nothing" else spacing_of(self.affine)

    @property
    def grid_shape(self) -> tuple[int, int, int]:
        """(F, H, W), without channels."""
        slices, rows, columns = self.array.shape[-3:]
        return slices, rows, columns
