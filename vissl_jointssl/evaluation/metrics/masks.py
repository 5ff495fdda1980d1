"""How well one mask covers another: overlap, and the distance of their surfaces.

| truth and prediction | `iou`, `dice` | `hausdorff95` |
|---|---|---|
| both empty | 1 | 0 |
| one empty | 0 | NaN: there is no distance to nothing |

Who takes means leaves NaN out and says how many there were, for a prediction that is empty has cost nothing there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

PERCENTILE = 95


def iou(predicted: np.ndarray, truth: np.ndarray) -> float:
    """Intersection over union of two boolean masks of one shape; 3D IoU where they are volumes.

    Raises:
        ValueError: If they are not booleans of one shape.
    """
    _check(predicted, truth)
    union = int(np.count_nonzero(predicted | truth))
    return int(np.count_nonzero(predicted & truth)) / union if union else 1.0


def dice(predicted: np.ndarray, truth: np.ndarray) -> float:
    """Twice the intersection over the sum of sizes, of two boolean masks of one shape.

    Raises:
        ValueError: If they are not booleans of one shape.
    """
    _check(predicted, truth)
    total = int(np.count_nonzero(predicted)) + int(np.count_nonzero(truth))
    return 2 * int(np.count_nonzero(predicted & truth)) / total if total else 1.0


def hausdorff95(predicted: np.ndarray, truth: np.ndarray, spacing: Sequence[float]) -> float:
    """95 % Hausdorff distance, in the unit of the spacing.

    A mask's surface is its voxels with a face neighbour that is not in the mask, or that end the array. Each surface
    voxel has a distance, between centres, to the nearest surface voxel of the other mask. The 95th percentile (linear
    between ranks) is taken in either direction, and the larger of the two is the result: MONAI's definition. Others
    pool both directions first, which gives smaller numbers.

    Args:
        predicted: Boolean, of any number of axes.
        truth: Likewise, of the same shape.
        spacing: Size of a voxel along each axis.

    Returns:
        0 where both are empty, NaN where one is.

    Raises:
        ValueError: If they are not booleans of one shape, or the spacing is not one size above 0 for each axis.
    """
    from scipy.ndimage import distance_transform_edt

    _check(predicted, truth)
    if len(spacing) != truth.ndim or not all(math.isfinite(size) and size > 0 for size in spacing):
        raise ValueError(f"spacing is {tuple(spacing)}, expected {truth.ndim} sizes above 0; see the manifest's row")
    if not predicted.any() or not truth.any():
        return math.nan if predicted.any() or truth.any() else 0.0
    box = _bounding_box(predicted | truth)  # what lies outside is no surface, and most of a scan does
    surfaces = _surface(predicted[box]), _surface(truth[box])
    directed = []
    for mine, other in (surfaces, surfaces[::-1]):
        distances = distance_transform_edt(~other, sampling=spacing)[mine]
        directed.append(float(np.percentile(distances, PERCENTILE)))
    return max(directed)


def _surface(mask: np.ndarray) -> np.ndarray:
    from scipy.ndimage import binary_erosion

    return mask & ~binary_erosion(mask, border_value=0)


def _bounding_box(mask: np.ndarray) -> tuple[slice, ...]:
    box = []
    for axis in range(mask.ndim):
        present = np.flatnonzero(mask.any(axis=tuple(other for other in range(mask.ndim) if other != axis)))
        box.append(slice(int(present[0]), int(present[-1]) + 1))
    return tuple(box)


def _check(predicted: np.ndarray, truth: np.ndarray) -> None:
    if predicted.dtype != bool or truth.dtype != bool:
        raise ValueError(f"masks are of {predicted.dtype} and {truth.dtype}, expected booleans; compare labels first")
    if predicted.shape != truth.shape:
        raise ValueError(f"masks have shapes {predicted.shape} and {truth.shape}; bring them to one grid first")
