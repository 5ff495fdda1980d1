"""What runs predicted, beside what is true, out of the files they left and the manifest of their data.

| task | in the folder of a run |
|---|---|
| segmentation of volumes | `predictions/<id>.nii.gz`: label numbers, or a fourth axis with a plane for each target |
| segmentation of images | `predictions/<id>.png`: label numbers; or `<id>-<number>.png` for each target |
| detection | `predictions/<id>.json`: a list of `label`, `left`, `top`, `right`, `bottom`, `score` |

`<id>` is the row's id, escaped as in a URL.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import numpy as np

from vissl_jointssl.manifest import Box, Entry, Manifest, ManifestError, as_unit_interval, read_manifest
from vissl_jointssl.report.evaluation_records import Evaluation, Run

FOLDER = "predictions"


class PredictionError(ValueError):
    """A prediction is missing or does not fit its case; the message names the file."""


@dataclass(frozen=True)
class ScoredBox(Box):
    """A predicted box with its score in [0, 1]."""

    score: float = 1.0


def find_manifest(evaluation: Evaluation, given: Sequence[Path]) -> Manifest | None:
    """The data of an evaluation, known by its fingerprint; None if none of the given manifests is it.

    Args:
        evaluation: Its `data` holds the fingerprint, and perhaps `manifest_path`, which is tried last.
        given: Manifests to look among.

    Raises:
        ManifestError: If a given one cannot be read.
    """
    for path in given:
        manifest = read_manifest(path)
        if manifest.fingerprint() == evaluation.data.get("manifest"):
            return manifest
    if written := evaluation.data.get("manifest_path"):
        try:
            manifest = read_manifest(Path(str(written)))
        except ManifestError:  # it was moved since; the page says that there is none
            return None
        return manifest if manifest.fingerprint() == evaluation.data.get("manifest") else None
    return None


def read_picture(manifest: Manifest, entry: Entry, place: int | None = None, channel: int = 0) -> np.ndarray:
    """A slice of a volume, or an image, as grey values `(H, W)` in [0, 1]."""
    array = manifest.open(entry)
    if entry.kind == "volume":
        volume = array[channel] if array.ndim == 4 else array
        return as_unit_interval(volume[len(volume) // 2 if place is None else place])
    picture = as_unit_interval(array)
    return picture.mean(axis=-1) if picture.ndim == 3 else picture


def true_masks(manifest: Manifest, entry: Entry, evaluation: Evaluation) -> tuple[np.ndarray, tuple[int, ...]]:
    """Boolean `(n, F, H, W)` or `(n, H, W)` of the targets, and their numbers; planes count from 1."""
    labels = np.asarray(manifest.open_label(entry))
    planes = labels.ndim > len(entry.grid_shape)
    if evaluation.options.get("instance_map"):
        return ((labels != 0).any(axis=0, keepdims=True) if planes else (labels != 0)[None]), (1,)
    every = range(1, len(labels) + 1) if planes else [int(number) for number in np.unique(labels) if number > 0]
    numbers = tuple(evaluation.options.get("labels") or every)
    masks = [labels[number - 1] != 0 if planes else labels == number for number in numbers]
    return np.stack(masks) if masks else np.zeros((0, *entry.grid_shape), bool), numbers


def predicted_masks(
    evaluation: Evaluation, run: Run, manifest: Manifest, entry: Entry, numbers: Sequence[int]
) -> np.ndarray:
    """Boolean masks of a run, on the grid of the prepared array, as in `true_masks`.

    Raises:
        PredictionError: If the file is missing or has another shape.
    """
    folder, stem = evaluation.folder(run) / FOLDER, quote(entry.id, safe="")
    if entry.kind == "volume":
        path = folder / f"{stem}.nii.gz"
        labels = _read_nifti(path, manifest, entry)
        planes = labels.ndim == len(entry.grid_shape) + 1
        if planes:
            masks = [labels[..., place] != 0 for place in range(labels.shape[-1])]
        else:
            masks = [labels == number for number in numbers]
    elif (path := folder / f"{stem}.png").is_file():
        labels = _read_png(path)
        masks = [labels == number for number in numbers]
    else:
        paths = [folder / f"{stem}-{number}.png" for number in numbers]
        if not paths or not all(one.is_file() for one in paths):
            raise PredictionError(f"{path} does not exist, nor one for each target")
        masks = [_read_png(one) != 0 for one in paths]
    if any(mask.shape != entry.grid_shape for mask in masks) or len(masks) != len(numbers):
        shape = masks[0].shape if masks else "nothing"
        raise PredictionError(f"{path} holds {len(masks)} of {shape}, its case {len(numbers)} of {entry.grid_shape}")
    return np.stack(masks) if masks else np.zeros((0, *entry.grid_shape), bool)


def true_boxes(manifest: Manifest, entry: Entry) -> tuple[Box, ...]:
    """The boxes of a row, or those around each number of its label map, where it has no boxes."""
    if entry.boxes_path is not None:
        return manifest.open_boxes(entry)
    labels = np.asarray(manifest.open_label(entry))
    found = []
    for number in np.unique(labels[labels > 0]):
        rows, columns = np.nonzero(labels == number)
        edges = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        found.append(Box(0, *(float(edge) for edge in edges)))
    return tuple(found)


def predicted_boxes(evaluation: Evaluation, run: Run, entry: Entry) -> tuple[ScoredBox, ...]:
    """The boxes that a run predicted for an image.

    Raises:
        PredictionError: If the file is missing or no list of boxes.
    """
    path = evaluation.folder(run) / FOLDER / f"{quote(entry.id, safe='')}.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        names = ("left", "top", "right", "bottom", "score")
        return tuple(ScoredBox(int(one["label"]), *(float(one[name]) for name in names)) for one in content)
    except FileNotFoundError:
        raise PredictionError(f"{path} does not exist") from None
    except (OSError, json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise PredictionError(f"{path} is no list of boxes ({type(error).__name__}: {error})") from error


def _read_png(path: Path) -> np.ndarray:
    from PIL import Image

    try:
        with Image.open(path, formats=["PNG"]) as picture:
            return np.array(picture)
    except (OSError, ValueError, SyntaxError) as error:
        raise PredictionError(f"{path} cannot be read ({error})") from error


def _read_nifti(path: Path, manifest: Manifest, entry: Entry) -> np.ndarray:
    """Labels `(F, H, W)` or `(F, H, W, n)`: from the voxels of the scan, if the row knows them, by the nearest one."""
    import nibabel
    from nibabel.filebasedimages import ImageFileError

    if not path.is_file():
        raise PredictionError(f"{path} does not exist")
    try:
        labels = np.asarray(nibabel.Nifti1Image.from_filename(path).dataobj)
    except (ImageFileError, OSError, EOFError, ValueError) as error:
        raise PredictionError(f"{path} cannot be read ({error})") from error
    if entry.grid_path is None:
        return labels
    grid = manifest.open_grid(entry)
    if labels.shape[:3] != grid.source_shape:
        raise PredictionError(f"{path} has shape {labels.shape[:3]}, the scan {grid.source_shape}")
    index = np.indices(entry.grid_shape).reshape(3, -1)
    to_source = np.linalg.inv(grid.source_affine) @ grid.affine
    nearest = np.floor(to_source[:3, :3] @ index + to_source[:3, 3:] + 0.5).astype(np.int64)
    nearest = np.clip(nearest, 0, np.array(grid.source_shape)[:, None] - 1)
    return labels[tuple(nearest)].reshape(*entry.grid_shape, *labels.shape[3:])
