"""Predictions as files that viewers open, by the row's id with whatever a file name cannot hold escaped as in a URL.

| row | labels | file in `predictions/` |
|---|---|---|
| volume | map | `<id>.nii.gz`, label numbers, 0 where no target is |
| volume | planes | `<id>.nii.gz`, a fourth axis with 0 and 1 for each target |
| image | map | `<id>.png`, label numbers; they look black, 1 of 255 |
| image | planes | `<id>-<number>.png` for each target, 0 and 255 |

A volume lies on the voxels of the scan that it was prepared from if its row has a `grid_path`, and else on those of
the array: index (f, h, w), axial slices from foot to head seen by a radiologist, at the row's spacing or 1 mm.
"""

from __future__ import annotations

import gzip
import io
from pathlib import Path
from urllib.parse import quote

import numpy as np

from vissl_jointssl.atomic_file import write_at_once
from vissl_jointssl.evaluation.segmentation.targets import Targets
from vissl_jointssl.manifest import Entry, Grid, Manifest

FOLDER = "predictions"
_TIE = 1e-6  # voxels; without it rounding noise would choose between two prepared voxels that are as near
_AS_AXIAL_SLICES = np.array([[0.0, 0, -1, 0], [0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]])  # (f, h, w) to RAS


def write_volume_prediction(
    masks: np.ndarray, entry: Entry, manifest: Manifest, targets: Targets, folder: Path
) -> Path:
    """Write masks `(n, F, H, W)` of a volume as NIfTI; returns the file."""
    import nibabel

    labels = _as_labels(masks, targets)
    if entry.grid_path is not None:
        grid = manifest.open_grid(entry)
        labels, affine = to_source_grid(labels, grid), grid.source_affine
    else:
        affine = _AS_AXIAL_SLICES @ np.diag([*(entry.spacing or (1.0, 1.0, 1.0)), 1.0])
    image = nibabel.Nifti1Image(labels, affine)
    image.set_sform(affine, 1)
    image.set_qform(affine, 1)  # some readers look at nothing else
    image.header.set_xyzt_units("mm")
    path = folder / FOLDER / f"{quote(entry.id, safe='')}.nii.gz"
    write_at_once(gzip.compress(image.to_bytes(), compresslevel=6, mtime=0), path)
    return path


def write_image_prediction(masks: np.ndarray, entry: Entry, targets: Targets, folder: Path) -> list[Path]:
    """Write masks `(n, H, W)` of an image as PNG; returns the files."""
    stem = quote(entry.id, safe="")
    if not targets.overlapping or targets.instances:
        pictures = {f"{stem}.png": _as_labels(masks, targets)}
    else:
        pictures = {
            f"{stem}-{number}.png": mask.astype(np.uint8) * np.uint8(255)
            for number, mask in zip(targets.numbers, masks, strict=True)
        }
    for name, picture in pictures.items():
        write_at_once(_png(picture), folder / FOLDER / name)
    return [folder / FOLDER / name for name in pictures]


def to_source_grid(labels: np.ndarray, grid: Grid) -> np.ndarray:
    """Bring labels from the prepared array onto the voxels of the file it was made from.

    Each voxel of the file takes the label of the prepared voxel that its centre lies in, and 0 where it lies in none,
    which cropping leaves around the prepared array.

    Args:
        labels: `(F, H, W)`, or `(F, H, W, n)`.
        grid: Of the row.

    Returns:
        Labels `(i, j, k)`, or `(i, j, k, n)`.
    """
    to_prepared = np.linalg.inv(grid.affine) @ grid.source_affine
    limits = np.array(labels.shape[:3])
    found = np.zeros((*grid.source_shape, *labels.shape[3:]), dtype=labels.dtype)
    rows, columns = np.meshgrid(*map(np.arange, grid.source_shape[1:]), indexing="ij", sparse=True)
    steps, start = to_prepared[:3, :3], to_prepared[:3, 3] + 0.5 + _TIE
    of_first_plane = rows[..., None] * steps[:, 1] + columns[..., None] * steps[:, 2] + start
    for plane in range(grid.source_shape[0]):  # one at a time: coordinates of a whole scan are 24 bytes a voxel
        nearest = np.floor(of_first_plane + plane * steps[:, 0]).astype(np.int32)
        inside = ((nearest >= 0) & (nearest < limits)).all(axis=-1)
        found[plane][inside] = labels[tuple(nearest[inside].T)]
    return found


def _as_labels(masks: np.ndarray, targets: Targets) -> np.ndarray:
    """Numbers `(...)` of `(n, ...)` masks that do not overlap; `(..., n)` of 0 and 1 of those that may."""
    if targets.overlapping and not targets.instances:
        return np.moveaxis(masks, 0, -1).astype(np.uint8)
    labels = np.zeros(masks.shape[1:], dtype=np.uint8 if max(targets.numbers) < 256 else np.uint16)
    for number, mask in zip(targets.numbers, masks, strict=True):
        labels[mask] = number
    return labels


def _png(picture: np.ndarray) -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "PNG")
    return stream.getvalue()
