"""From a scanner's units to uint16, the cache's stand-in for [0, 1].

CT values mean the same everywhere (Hounsfield units), so a fixed window does. MR values are relative to the scan, so
its own percentiles make the window. 16 bits keep steps of 0.06 HU over the default window, in half of float32's space.
"""

from __future__ import annotations

import numpy as np

CT_WINDOW = (-1000.0, 1000.0)  # HU: air to dense bone
MR_PERCENTILES = (0.5, 99.5)
CT_AIR = -900.0  # HU: below it is air; lung parenchyma starts at about -870


def window(array: np.ndarray, low: float, high: float, stored_type: str = "uint16") -> np.ndarray:
    """Map [low, high] to the whole range of the stored type, uint16 or uint8; what lies outside is clipped.

    Raises:
        ValueError: If the window is empty.
    """
    if not high > low:
        raise ValueError(f"the intensity window ({low:g}, {high:g}) is empty; its second value must be the larger")
    unit = (array.astype(np.float32) - np.float32(low)) / np.float32(high - low)
    return np.rint(np.clip(unit, 0, 1) * np.iinfo(stored_type).max).astype(stored_type)


def foreground(array: np.ndarray, modality: str) -> np.ndarray:
    """Where there is body: True for voxels that are not air. Same shape as the input, which is in scanner's units.

    CT: above -900 HU. Otherwise: brighter than a tenth of the way from the 1st to the 99th percentile, which the noise
    of an MR background stays below.
    """
    if modality == "CT":
        return array > CT_AIR
    low, high = np.percentile(array, (1, 99))
    return array > low + 0.1 * (high - low)


def percentile_window(
    array: np.ndarray, modality: str, percentiles: tuple[float, float] = MR_PERCENTILES
) -> tuple[float, float]:
    """The window that holds the foreground's intensities but for its outliers, in the units of the array."""
    body = array[foreground(array, modality)]
    low, high = np.percentile(body if body.size else array, percentiles)
    if high <= low:  # nearly every foreground voxel is equal: the full range is all there is
        low, high = array.min(), array.max()
    return float(low), float(high)


def guess_modality(array: np.ndarray) -> str:
    """Tell "CT" (a voxel in a thousand is below -200, as only Hounsfield units go) from "MR" (all else)."""
    return "CT" if float((array < -200).mean()) >= 0.001 else "MR"
