"""One slice of a scan, small enough for a contact sheet, with its labels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vissl_jointssl.manifest import Entry, Manifest, ManifestError, as_unit_interval
from vissl_jointssl.preparation.doctor.loading import load_labels, load_scan, merged, modality_of, used_channels
from vissl_jointssl.preparation.errors import ReadError
from vissl_jointssl.preparation.pictures import Picture, read_picture
from vissl_jointssl.preparation.processing.intensity import percentile_window
from vissl_jointssl.preparation.recipe import Options, Source
from vissl_jointssl.preparation.scan import Scan

SIDE = 192  # pixels of the longer side
_PERCENTILES = (0.5, 99.5)


@dataclass(frozen=True)
class Thumbnail:
    """A slice in pixels of equal size.

    Attributes:
        pixels: `(h, w)` or `(h, w, 3)` uint8, at most `SIDE` long.
        labels: `(h, w)` label numbers, 0 where there is none, or None.
        slice: Which one of a volume, counted from 0; None for an image.
    """

    pixels: np.ndarray
    labels: np.ndarray | None
    slice: int | None


def source_thumbnail(source: Source, root: Path, options: Options) -> Thumbnail | None:
    """Of a source as its scanner made it; of many samples the first. None where it cannot be read."""
    try:
        if source.array_names is not None:
            return _first_sample(source, root)
        if source.kind == "image":
            picture = read_picture(root / source.path)
            low, high = np.percentile(picture.array, _PERCENTILES) if picture.array.ndim == 2 else (0, 255)
            return _thumbnail(_windowed(picture.array, low, high), _maybe(source, root, picture, options), None, None)
        scan = load_scan(source, root, options)
        volume = used_channels(source, scan, options)[0]
        modality = modality_of(source, scan)
        low, high = options.ct_window if modality == "CT" else percentile_window(volume, modality, _PERCENTILES)
        labels = _maybe(source, root, scan, options)
        number = _slice_to_show(volume, labels)
        part = None if labels is None else labels[number]
        return _thumbnail(_windowed(volume[number], low, high), part, scan.spacing, number)
    except ReadError:
        return None


def row_thumbnail(entry: Entry, root: Path) -> Thumbnail | None:
    """Of a row as training sees it; None where it cannot be read."""
    manifest = Manifest(root / "manifest.csv", [entry])
    try:
        array = manifest.open(entry)
    except ManifestError:
        return None
    labels = None
    try:
        if entry.label_path is not None:
            labels = merged(manifest.open_label(entry), len(entry.grid_shape))
    except ManifestError:
        labels = None  # the scan is worth showing without them
    if entry.kind == "image":
        return _thumbnail(_windowed(as_unit_interval(array), 0, 1), labels, None, None)
    volume = array[0] if array.ndim == 4 else array
    number = _slice_to_show(volume, labels)
    pixels = _windowed(as_unit_interval(volume[number]), 0, 1)
    return _thumbnail(pixels, None if labels is None else labels[number], entry.spacing, number)


def _first_sample(source: Source, root: Path) -> Thumbnail | None:
    from vissl_jointssl.preparation.decoding.medmnist import read_samples

    for array, _ in read_samples(root / source.path, source.array_names or ("", "")):
        pixels = array[len(array) // 2] if source.kind == "volume" else array
        number = len(array) // 2 if source.kind == "volume" else None
        return _thumbnail(_windowed(pixels, 0, float(array.max())), None, None, number)
    return None


def _maybe(source: Source, root: Path, found: Scan | Picture, options: Options) -> np.ndarray | None:
    """The labels on one grid; None where there are none or they are at fault, for the scan is worth showing."""
    try:
        labels = load_labels(source, root, found, options)
    except ReadError:
        return None
    return None if labels is None else merged(labels, 3 if isinstance(found, Scan) else 2)


def _slice_to_show(volume: np.ndarray, labels: np.ndarray | None) -> int:
    """The middle one, or where most is labelled."""
    if labels is None or not labels.any():
        return len(volume) // 2
    return int((labels != 0).sum(axis=(1, 2)).argmax())


def _windowed(array: np.ndarray, low: float, high: float) -> np.ndarray:
    unit = (array.astype(np.float32) - low) / max(1e-6, high - low)
    return np.rint(np.clip(np.nan_to_num(unit), 0, 1) * 255).astype(np.uint8)


def _thumbnail(
    pixels: np.ndarray, labels: np.ndarray | None, spacing: tuple[float, float, float] | None, number: int | None
) -> Thumbnail:
    """Brought to pixels of equal millimetres and at most `SIDE` along the longer side."""
    from PIL import Image

    _, down, right = spacing or (1.0, 1.0, 1.0)
    height, width = pixels.shape[0] * down, pixels.shape[1] * right
    scale = SIDE / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = np.array(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))
    drawn = None
    if labels is not None:
        drawn = np.array(Image.fromarray(labels.astype(np.int32)).resize(size, Image.Resampling.NEAREST))
    return Thumbnail(small, drawn, number)
