"""Whether label maps and boxes fit what they belong to."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vissl_jointssl.manifest import Box
from vissl_jointssl.preparation.doctor.diagnosis import Fault, error, warning

_PIXEL = 1.0  # a box may leave its image by this much, and is then clipped: tools count from 0 or 1, or round


def numbers_in(labels: np.ndarray, axes: int) -> tuple[int, ...]:
    """Label numbers that occur, without 0; of planes, numbers from 1 of those that mark something.

    Args:
        labels: On the grid of `axes` axes, or planes with one axis more.
        axes: 3 for volumes, 2 for images.
    """
    if labels.ndim == axes:
        return tuple(int(number) for number in np.unique(labels) if number != 0)
    return tuple(number for number, plane in enumerate(labels, start=1) if plane.any())


def label_faults(numbers: tuple[int, ...], classes: int) -> list[Fault]:
    """Faults of a label map.

    Args:
        numbers: That occur in it, without 0.
        classes: How many there are names for; 0 where nobody says.
    """
    if not numbers:
        return [warning("label_empty", "its label map is 0 everywhere", "see whether it is the right one")]
    if min(numbers) < 0 or max(numbers) > 65535:
        reason = f"its label map has numbers from {min(numbers)} to {max(numbers)}"
        return [error("label_values", reason, "use numbers from 0 to 65535")]
    if classes and max(numbers) > classes:
        reason = f"its label map has number {max(numbers)}, and there are names for 1 to {classes}"
        return [warning("label_values", reason, "see whether the map is of this data set")]
    return []


def box_faults(boxes: Sequence[Box], shape: tuple[int, ...]) -> list[Fault]:
    """Faults of the boxes of an image of `(H, W)`: how many are empty, how many leave it by more than a pixel."""
    empty = sum(not (box.left < box.right and box.top < box.bottom) for box in boxes)
    reach = [max(-box.left, -box.top, box.right - shape[1], box.bottom - shape[0]) for box in boxes]
    outside = sum(not far <= _PIXEL for far in reach)  # NaN is outside
    faults = []
    if empty:
        faults.append(error("boxes", f"{empty} of its {len(boxes)} boxes are empty", "correct the table of boxes"))
    if outside:
        reason = f"{outside} of its {len(boxes)} boxes leave the image of {shape[0]} x {shape[1]} pixels"
        faults.append(error("boxes", reason, "see whether they are of this image, in its pixels, left before top"))
    return faults
