"""Label maps and label planes of a source, in its recipe's numbers and the smallest type."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from vissl_jointssl.preparation.errors import ReadError
from vissl_jointssl.preparation.recipe import Source

Reader = Callable[[Path], np.ndarray]  # a file to integers on the grid of its scan or image


def read_label_maps(source: Source, root: Path, read: Reader) -> np.ndarray | None:
    """The source's labels.

    Returns:
        Of a label map, its `(F, H, W)` or `(H, W)` in uint8 or uint16; of L planes, `(L, ...)` of 0 and 1 in uint8;
        None where the source has neither.

    Raises:
        ReadError: If a file is at fault, a number does not fit, or a plane has more than one label.
    """
    if source.label_path is not None:
        path = root / source.label_path
        return _compact(read(path), source.label_groups, path)
    if source.plane_paths:
        return np.stack([_plane(read(root / relative), root / relative) for relative in source.plane_paths])
    return None


def _compact(labels: np.ndarray, groups: Mapping[int, int] | None, path: Path) -> np.ndarray:
    """Label numbers of the file to those of the recipe, in the smallest type that holds them."""
    if groups is not None:
        present = np.unique(labels)
        merged = np.array([groups.get(int(number), 0) for number in present], dtype=np.int32)
        labels = merged[np.searchsorted(present, labels)]
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high > 65535:
        raise ReadError(
            path, f"holds label numbers from {low} to {high}", "use numbers from 0 to 65535", "label_values"
        )
    return labels.astype(np.uint8 if high < 256 else np.uint16)


def _plane(plane: np.ndarray, path: Path) -> np.ndarray:
    """A mask as 0 and 1; its own number for 1 is often 255."""
    numbers = np.unique(plane)
    marks = numbers[numbers != 0]
    if len(marks) > 1:
        reason = f"holds {len(marks)} label numbers and is to be the mask of one label"
        raise ReadError(path, reason, "give it as a label map, or one mask for each label", "label_values")
    return (plane != 0).astype(np.uint8)
