"""Where the body is, so that the air around it need not be stored."""

from __future__ import annotations

import numpy as np

_MARGIN = 2  # voxels: the skin is where the mask ends
_SMALLEST = 0.01  # of the largest part's voxels; noise and dust are below, arms beside a trunk above
_MOST_VOXELS = 2**24  # more are thinned out first: connecting 512 x 512 x 600 voxels takes seconds and gigabytes


def body_box(body: np.ndarray, labels: np.ndarray | None = None) -> tuple[slice, slice, slice]:
    """The box around the body, as index slices of `(F, H, W)`.

    Specks are not counted as body: only connected parts of a hundredth of the largest one's size and more.

    Args:
        body: Where there is no air, `(F, H, W)` bool.
        labels: Label map `(F, H, W)` or planes `(L, F, H, W)`; the box is wide enough to hold every label.

    Returns:
        The whole of the array where there is no body at all.
    """
    from scipy import ndimage

    step = max(1, int(np.ceil((body.size / _MOST_VOXELS) ** (1 / 3))))
    parts, count = ndimage.label(body[::step, ::step, ::step])
    sizes = np.bincount(parts.ravel(), minlength=count + 1)
    sizes[0] = 0
    boxes = [
        [(part.start * step - step - _MARGIN, part.stop * step + _MARGIN) for part in box]
        for box, size in zip(ndimage.find_objects(parts), sizes[1:], strict=True)
        if size >= _SMALLEST * sizes.max()
    ]
    if not boxes:
        return (slice(0, body.shape[0]), slice(0, body.shape[1]), slice(0, body.shape[2]))
    if labels is not None:
        flat = labels.any(axis=0) if labels.ndim == 4 else labels
        for marked in ndimage.find_objects((flat != 0).astype(np.uint8)):
            boxes.append([(part.start, part.stop) for part in marked])
    ends = [
        slice(max(0, min(start for start, _ in axis)), min(length, max(stop for _, stop in axis)))
        for axis, length in zip(zip(*boxes, strict=True), body.shape, strict=True)
    ]
    return ends[0], ends[1], ends[2]


def cropped_affine(affine: np.ndarray, box: tuple[slice, slice, slice]) -> np.ndarray:
    """The affine of `array[box]`, from that of `array`."""
    moved = np.array(affine, dtype=float)
    moved[:3, 3] += moved[:3, :3] @ [part.start for part in box]
    return moved
