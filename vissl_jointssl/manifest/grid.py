"""Where a prepared array lies in its scan, so that a prediction can be brought back onto the scan's own voxels."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vissl_jointssl.atomic_file import write_at_once


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
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        affine, source_affine = np.array(content["affine"], float), np.array(content["source_affine"], float)
        first, second, third = (int(length) for length in content["source_shape"])
    except FileNotFoundError:
        raise ValueError("does not exist") from None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ValueError(f"is no grid ({type(error).__name__}: {error})") from None
    if affine.shape != (4, 4) or source_affine.shape != (4, 4):
        raise ValueError("is no grid (an affine is not 4x4)")
    return Grid(affine, source_affine, (first, second, third))


def write_grid(grid: Grid, path: Path) -> None:
    """Write it in one step."""
    content = {
        "affine": np.asarray(grid.affine).tolist(),
        "source_affine": np.asarray(grid.source_affine).tolist(),
        "source_shape": [int(length) for length in grid.source_shape],
    }
    write_at_once((json.dumps(content) + "\n").encode(), path)
