"""What becomes of a source: one array with what the manifest says about it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vissl_jointssl.manifest import Box, Grid


@dataclass(frozen=True)
class Piece:
    """An array ready to be written, with what the manifest says about it.

    Attributes:
        suffix: Appended to the source's id; empty where the source is one piece.
        array: `(F, H, W)` or `(C, F, H, W)` uint16 or uint8 of a volume, `(H, W)` or `(H, W, 3)` of an image.
        labels: Label map of the same `(F, H, W)` or `(H, W)`, uint8 or uint16, or `(L, ...)` planes of 0 and 1, or
            None.
        label: Class from 0, or None.
        modality: See `Source`.
        spacing: Along (F, H, W) in mm, None for images and where it is not known.
        boxes: In pixels of the array, or None.
        grid: Where the array lies in its scan, or None.
        original: Suffix and bytes of an image file that is written in place of `.npy`; decodes to `array`.
        patient: Hashed, where it is not the source's.
        notes: What a person should know and training can live with.
    """

    suffix: str
    array: np.ndarray
    labels: np.ndarray | None
    label: int | None
    modality: str
    spacing: tuple[float, float, float] | None
    boxes: tuple[Box, ...] | None = None
    grid: Grid | None = None
    original: tuple[str, bytes] | None = None
    patient: str | None = None
    notes: tuple[str, ...] = ()
