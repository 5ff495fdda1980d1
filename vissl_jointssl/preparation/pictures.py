"""Single 2D images (X-rays, photographs, slices) and their masks from any 2D format."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vissl_jointssl.preparation.decoding.images import read_image


@dataclass(frozen=True)
class Picture:
    """An image in memory.

    Attributes:
        array: `(H, W)` uint8 or uint16 for grey, `(H, W, 3)` uint8 for colour; larger is brighter.
        modality: "XR", ... where the file says it (DICOM), or None.
        notes: As in `Scan`.
    """

    array: np.ndarray
    modality: str | None = None
    notes: tuple[str, ...] = ()


def read_picture(path: Path) -> Picture:
    """Decode an image.

    Raises:
        ReadError: If the file cannot be decoded to its last byte, or shows one value only.
    """
    return Picture(read_image(path))
