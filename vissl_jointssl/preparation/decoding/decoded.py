"""What every volume decoder gives back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Decoded:
    """A volume as its file has it.

    Attributes:
        array: `(i, j, k)`, or `(i, j, k, n)` with n channels or points in time.
        affine: Index (i, j, k) to RAS mm, 4x4.
        modality: "CT", "MR", ... where the file says it, or None.
        notes: What a person should know and training can live with, such as a tilted gantry; no header text.
    """

    array: np.ndarray
    affine: np.ndarray
    modality: str | None = None
    notes: tuple[str, ...] = ()
