"""From millimetres to what a view is made of: shares of a slice, and places along the slices."""

from __future__ import annotations

import math
from dataclasses import dataclass

Spacing = tuple[float, float, float]


@dataclass(frozen=True)
class SlicePlaces:
    """Where the slices of a view lie in a volume.

    Attributes:
        first: First slice of the volume that they are interpolated from.
        slices: How many of the volume's slices they are interpolated from.
        count: How many there are.
        start: Place of the first, in slices counted from `first`.
        step: Distance of two, in slices of the volume.
    """

    first: int
    slices: int
    count: int
    start: float
    step: float


def crop_shares(side: float, ratio: float, extent: tuple[float, float]) -> tuple[float, float]:
    """Share of the height and of the width that a crop covers.

    Args:
        side: Square root of the crop's area, mm.
        ratio: Its height over its width.
        extent: Height and width of the slice, mm.

    Returns:
        Two shares, both at most 1: a crop that exceeds the slice is shrunk, keeping its ratio.
    """
    rows, columns = side * math.sqrt(ratio) / extent[0], side / math.sqrt(ratio) / extent[1]
    shrink = max(1.0, rows, columns)
    return rows / shrink, columns / shrink


def place_slices(count: int, wanted: int, step: float, offset: float) -> SlicePlaces:
    """Lay slices that are `step` apart into a volume.

    Args:
        count: Slices of the volume.
        wanted: Slices of the view; as many as fit exist, at least one.
        step: Distance of two slices of the view, in slices of the volume.
        offset: Where the view lies in the room that is left, 0 (at the first slice) to 1.

    Returns:
        Every existing slice of the view is a slab of thickness `step` inside the volume, and its place is the slab's
        middle; a slice of the volume is a slab of thickness 1 about its number.
    """
    existing = min(wanted, max(1, math.floor(count / step + 1e-9)))  # 64 slices of 0.7 mm are 44.8 mm, not less
    room = count - existing * step
    edge = room * offset if room > 0 else room / 2  # a volume thinner than one step: its middle
    start = edge + step / 2 - 0.5
    end = start + (existing - 1) * step
    reach = max(1.0, step)
    first = max(0, math.floor(start - reach) + 1)
    last = min(count - 1, math.ceil(end + reach) - 1)
    return SlicePlaces(first, last - first + 1, existing, start - first, step)
