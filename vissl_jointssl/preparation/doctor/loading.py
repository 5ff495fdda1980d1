"""The parts of a source in memory, as preparation reads them; the doctor and its contact sheet both look."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from vissl_jointssl.preparation import pictures
from vissl_jointssl.preparation.pictures import Picture
from vissl_jointssl.preparation.processing.intensity import guess_modality
from vissl_jointssl.preparation.processing.label_maps import read_label_maps
from vissl_jointssl.preparation.reading import read_labels, read_scan
from vissl_jointssl.preparation.recipe import Options, Source
from vissl_jointssl.preparation.scan import Scan

UNKNOWN = "OT"  # DICOM's word for other


def load_scan(source: Source, root: Path, options: Options) -> Scan:
    """The volume of a source with all of its channels.

    Raises:
        ReadError: As in `reading.read_scan`.
    """
    parts: dict[str, Any] = {"files": source.files, "channel_paths": source.channel_paths}
    parts = {name: [root / file for file in files] for name, files in parts.items() if files}
    return read_scan(root / source.path, options.slice_axis, **parts)


def used_channels(source: Source, scan: Scan, options: Options) -> np.ndarray:
    """`(C, F, H, W)`: what preparation keeps of a scan; of a series of volumes by default the first."""
    if scan.array.ndim == 3:
        return scan.array[None]
    only_first = options.fourth_axis == "first" and not source.channel_paths
    return scan.array[:1] if only_first else scan.array


def modality_of(source: Source, found: Scan | Picture) -> str:
    """As given, else as the file says, else as the values tell."""
    stated = source.modality or found.modality
    if stated is not None:
        return stated
    return guess_modality(found.array) if isinstance(found, Scan) else UNKNOWN


def load_labels(source: Source, root: Path, found: Scan | Picture, options: Options) -> np.ndarray | None:
    """The source's label map, or its planes; see `label_maps.read_label_maps`.

    Raises:
        ReadError: As there.
    """
    if isinstance(found, Scan):
        axis, by_voxel = options.slice_axis, source.labels_by_voxel
        return read_label_maps(source, root, lambda path: read_labels(path, found, axis, by_voxel=by_voxel))
    shape = (found.array.shape[0], found.array.shape[1])
    return read_label_maps(source, root, lambda path: pictures.read_mask(path, shape))


def merged(labels: np.ndarray, axes: int) -> np.ndarray:
    """Label numbers on the grid of `axes` axes; planes are numbered from 1 and drawn over one another."""
    if labels.ndim == axes:
        return labels
    together = np.zeros(labels.shape[1:], np.uint8)
    for number, plane in enumerate(labels, start=1):
        together[plane != 0] = number
    return together
