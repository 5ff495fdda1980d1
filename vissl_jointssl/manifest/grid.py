"""Where a prepared array lies in its scan, so that a prediction can be brought back onto the scan's own voxels."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vissl_jointssl.atomic_file import write_at_once
from vissl_jointssl.manifest.json_file import read_json

_LARGEST_FILE = 2**16  # bytes; one has 800


@dataclass(frozen=True)
class Grid:
    """The positions of a prepared array and of the file it was made from.

    Attributes:
        affine: Index (f, h, w) of the prepared array to RAS mm, 4x4.
        source_affine: Index (i, j, k) of the file to RAS mm, 4x4.
        source_shape: (i, j, k) of the file, without channels.
    """

    affine: np.ndarray
    source_affine: np.ndarray
    source_shape: tuple[int, int, int]


def read_grid(path: Path) -> Grid:
    """Read what `write_grid` wrote.

    Raises:
        ValueError: If the file is missing or is not that.
    """
    content = read_json(path, _LARGEST_FILE)
    try:
        affine, source_affine = np.array(content["affine"], float), np.array(content["source_affine"], float)
        first, second, third = content["source_shape"]
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        raise ValueError(f"is no grid ({type(error).__name__})") from None
    for one in (affine, source_affine):
        if one.shape != (4, 4) or not np.isfinite(one).all():
            raise ValueError("is no grid (an affine is not 4x4 finite numbers)")
    if not all(type(length) is int and length > 0 for length in (first, second, third)):
        raise ValueError("is no grid (source_shape is not three positive whole numbers)")
    return Grid(affine, source_affine, (first, second, third))


def write_grid(grid: Grid, path: Path) -> None:
    """Write it in one step."""
    content = {
        "affine": np.asarray(grid.affine).tolist(),
        "source_affine": np.asarray(grid.source_affine).tolist(),
        "source_shape": [int(length) for length in grid.source_shape],
    }
    write_at_once((json.dumps(content) + "\n").encode(), path)
