"""From the axes of a file to (F, H, W), by the affine and never by the order in a file.

Every scan is first turned to RAS (first axis to the patient's right, second to the front, third to the head), then to
the way radiologists look at slices, patient's right on the left of the picture:

| slice axis | F runs | H (rows) runs | W (columns) runs |
|---|---|---|---|
| axial | foot to head | front to back | right to left |
| coronal | back to front | head to foot | right to left |
| sagittal | left to right | head to foot | front to back |
"""

from __future__ import annotations

import numpy as np

# For each slice axis: which RAS axis becomes F, H and W, and whether it is reversed.
_LAYOUTS = {
    "axial": ((2, False), (1, True), (0, True)),
    "coronal": ((1, False), (2, True), (0, True)),
    "sagittal": ((0, False), (2, True), (1, True)),
}
SLICE_AXES = tuple(_LAYOUTS)


def to_slices(array: np.ndarray, affine: np.ndarray, slice_axis: str) -> tuple[np.ndarray, np.ndarray]:
    """Turn an array of any orientation into slices.

    An oblique scan is turned to the nearest right angle and not resampled.

    Args:
        array: Three axes, in the order of the affine's columns.
        affine: Voxel index to RAS mm, 4x4.
        slice_axis: "axial", "coronal" or "sagittal".

    Returns:
        The array as `(F, H, W)` (a view, not a copy), and its affine: index (f, h, w) to RAS mm.

    Raises:
        ValueError: If the slice axis is unknown.
    """
    if slice_axis not in _LAYOUTS:
        raise ValueError(f"slice axis is {slice_axis!r}, expected one of {', '.join(SLICE_AXES)}")
    from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation

    orientation = io_orientation(affine)
    canonical = apply_orientation(array, orientation)
    affine = affine @ inv_ornt_aff(orientation, array.shape)
    for axis, reverse in _LAYOUTS[slice_axis]:
        if reverse:
            canonical = np.flip(canonical, axis)
            flip = np.eye(4)
            flip[axis, axis], flip[axis, 3] = -1, canonical.shape[axis] - 1
            affine = affine @ flip
    order = [axis for axis, _ in _LAYOUTS[slice_axis]]
    return canonical.transpose(order), affine[:, [*order, 3]]


def spacing_of(affine: np.ndarray) -> tuple[float, float, float]:
    """Voxel size in mm along each index axis of an affine."""
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    return float(sizes[0]), float(sizes[1]), float(sizes[2])
