"""One source on disk to the arrays that training reads: whole volumes, regions of volumes, or images."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vissl_jointssl.preparation.errors import ReadError
from vissl_jointssl.preparation.intensity import foreground, guess_modality, percentile_window, window
from vissl_jointssl.preparation.pictures import read_picture
from vissl_jointssl.preparation.reading import read_labels, read_scan
from vissl_jointssl.preparation.recipe import Options, Source
from vissl_jointssl.preparation.resampling import resample, resampled_shape
from vissl_jointssl.preparation.tiling import dominant_label, tiles

_FEW_VALUES = 16
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Piece:
    """An array ready to be written, with what the manifest says about it.

    Attributes:
        suffix: Appended to the source's id; empty where the source is one piece.
        array: `(F, H, W)` uint16, or an image.
        labels: Label map of the same `(F, H, W)`, uint8 or uint16, or None.
        label: Class from 0, or None.
        modality: See `Source`.
        spacing: Along (F, H, W) in mm, None for images.
    """

    suffix: str
    array: np.ndarray
    labels: np.ndarray | None
    label: int | None
    modality: str
    spacing: tuple[float, float, float] | None


def pieces_of(source: Source, root: Path, options: Options) -> Iterator[Piece]:
    """Read a source and yield what becomes of it.

    Raises:
        ReadError: If a file of the source is at fault, or nothing of it is left.
    """
    if source.kind == "image":
        array = _stretch(read_picture(root / source.path).array, options.percentiles)
        yield Piece("", array, None, source.label, source.modality or "OT", None)  # OT: DICOM's word for other
        return
    path = root / source.path
    scan = read_scan(path, options.slice_axis)
    if len(np.unique(scan.array[:: max(1, len(scan.array) // 8)])) < _FEW_VALUES:  # some slices tell it in no time
        _log.warning("%s: holds so few different values that it looks like a label map, not a scan; taken as one", path)
    labels = None
    if source.label_path is not None:
        labels = read_labels(root / source.label_path, scan, options.slice_axis)
        labels = _compact(labels, source.label_groups, root / source.label_path)
    modality = source.modality or scan.modality or guess_modality(scan.array)
    limits = options.ct_window if modality == "CT" else percentile_window(scan.array, modality, options.percentiles)
    body = foreground(scan.array, modality)
    values, spacing = scan.array, scan.spacing
    if options.spacing is not None:
        shape = resampled_shape(values.shape, spacing, options.spacing)
        spacing = tuple(size * old / new for size, old, new in zip(spacing, values.shape, shape, strict=True))
        values, body = resample(values, shape), resample(body, shape, labels=True)
        labels = None if labels is None else resample(labels, shape, labels=True)
    stored = window(values, *limits)
    if stored.min() == stored.max():
        reason = f"every voxel falls on one side of the window {limits} of {modality}"
        raise ReadError(path, reason, "check the modality: CT is expected in Hounsfield units")
    rounded = (round(spacing[0], 4), round(spacing[1], 4), round(spacing[2], 4))
    if options.tile_size is None:
        yield Piece("", stored, labels, source.label, modality, rounded)
        return
    kept = 0
    for number, region in enumerate(tiles(stored.shape, options.tile_size, options.tile_stride or options.tile_size)):
        if float(body[region].mean()) < options.minimum_foreground:
            continue
        kept += 1
        label = source.label
        if labels is not None and label is None:
            winner = dominant_label(labels[region], options.region_share, options.region_margin)
            label = None if winner is None else winner - 1
        part = None if labels is None else labels[region]
        yield Piece(f"-r{number:04d}", stored[region], part, label, modality, rounded)
    if kept == 0:
        reason = f"no region has {options.minimum_foreground:.0%} of voxels that are not air"
        raise ReadError(path, reason, "check the modality, or lower minimum_foreground")


def _compact(labels: np.ndarray, groups: Mapping[int, int] | None, path: Path) -> np.ndarray:
    """Label numbers of the file to those of the recipe, in the smallest type that holds them."""
    if groups is not None:
        present = np.unique(labels)
        merged = np.array([groups.get(int(number), 0) for number in present], dtype=np.int32)
        labels = merged[np.searchsorted(present, labels)]
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high > 65535:
        raise ReadError(path, f"holds label numbers from {low} to {high}", "use numbers from 0 to 65535")
    return labels.astype(np.uint8 if high < 256 else np.uint16)


def _stretch(image: np.ndarray, percentiles: tuple[float, float]) -> np.ndarray:
    """Grey images by their own percentiles to the full range of their type: many use a fraction of it. Colour stays."""
    if image.ndim == 3:
        return image
    low, high = np.percentile(image, percentiles)
    if high <= low:
        low, high = image.min(), image.max()
    largest = np.iinfo(image.dtype).max
    unit = np.clip((image.astype(np.float32) - low) / (high - low), 0, 1)
    return np.rint(unit * largest).astype(image.dtype)
