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
_FLAT = 1e-3  # volume spanned by the unit axes; 1 at right angles, 0.5 for a gantry tilted by 60 degrees
AS_AXIAL_SLICES = np.array([[0.0, 0, -1, 0], [0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]])  # of an index (f, h, w)


def to_slices(array: np.ndarray, affine: np.ndarray, slice_axis: str) -> tuple[np.ndarray, np.ndarray]:
    """Turn an array of any orientation into slices.

    An oblique scan is turned to the nearest right angle and not resampled.

    Args:
        array: Three axes, in the order of the affine's columns, and perhaps a fourth of channels or time.
        affine: Voxel index to RAS mm, 4x4.
        slice_axis: "axial", "coronal" or "sagittal".

    Returns:
        The array as `(F, H, W)` or `(C, F, H, W)` (a view, not a copy), and its affine: index (f, h, w) to RAS mm.

    Raises:
        ValueError: If the slice axis is unknown.
    """
    if slice_axis not in _LAYOUTS:
        raise ValueError(f"slice axis is {slice_axis!r}, expected one of {', '.join(SLICE_AXES)}")
    from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation

    orientation = io_orientation(affine)
    canonical = apply_orientation(array, orientation)
    affine = affine @ inv_ornt_aff(orientation, array.shape[:3])
    for axis, reverse in _LAYOUTS[slice_axis]:
        if reverse:
            canonical = np.flip(canonical, axis)
            flip = np.eye(4)
            flip[axis, axis], flip[axis, 3] = -1, canonical.shape[axis] - 1
            affine = affine @ flip
    order = [axis for axis, _ in _LAYOUTS[slice_axis]]
    return canonical.transpose([*range(3, array.ndim), *order]), affine[:, [*order, 3]]


def is_usable(affine: np.ndarray) -> bool:
    """Whether an affine gives every voxel a size above 0 and a place of its own."""
    with np.errstate(all="ignore"):  # numbers of a damaged header may overflow, and are refused for it
        sizes = np.linalg.norm(affine[:3, :3], axis=0)
        if not (np.isfinite(affine).all() and np.isfinite(sizes).all() and sizes.min() > 0):
            return False
        return bool(abs(np.linalg.det(affine[:3, :3] / sizes)) > _FLAT)


def spacing_of(affine: np.ndarray) -> tuple[float, float, float]:
    """Voxel size in mm along each index axis of an affine."""
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    return float(sizes[0]), float(sizes[1]), float(sizes[2])
