"""What every volume decoder gives back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

# What a file says of its voxels: where each lies, their size only, or neither.
Geometry = Literal["place", "spacing", "nothing"]


@dataclass(frozen=True)
class Decoded:
    """A volume as its file has it.

    Attributes:
        array: `(i, j, k)`, or `(i, j, k, n)` with n channels or points in time.
        affine: Index (i, j, k) to RAS mm, 4x4. Where the file does not say it, one under which the axes come out as
            (F, H, W) of axial slices in the order that the format has them.
        modality: "CT", "MR", ... where the file says it, or None.
        notes: What a person should know and training can live with, such as a tilted gantry; no header text.
        geometry: How much of the affine the file says.
    """

    array: np.ndarray
    affine: np.ndarray
    modality: str | None = None
    notes: tuple[str, ...] = ()
    geometry: Geometry = "place"
