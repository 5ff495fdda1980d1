"""One row of a prepared folder: its files, and what is in them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np

from vissl_jointssl.manifest import IMAGE_SUFFIXES, Entry, Manifest, ManifestError
from vissl_jointssl.manifest.arrays import float_faults
from vissl_jointssl.preparation.doctor.diagnosis import Fault, error
from vissl_jointssl.preparation.doctor.facts import Examined, Facts
from vissl_jointssl.preparation.doctor.grids import size_faults, spacing_faults
from vissl_jointssl.preparation.doctor.intensities import image_faults, prepared_faults
from vissl_jointssl.preparation.doctor.labels import label_faults, numbers_in
from vissl_jointssl.preparation.doctor.values import Values, values_of

Content = TypeVar("Content")

# A finished run trusts arrays of the right size, so a damaged one is made anew only when it is gone.
_AGAIN = "delete the file and run `jointssl prepare` again, which makes it anew"


def examine_row(entry: Entry, root: Path, with_hash: bool) -> Examined:
    """Open every file of a row and look at what it holds.

    Args:
        entry: The row.
        root: Folder of the manifest.
        with_hash: Whether to compare the array file with the sha256 of its row, which reads all of it.
    """
    manifest = Manifest(root / "manifest.csv", [entry])
    array, faults = _opened(manifest.open, entry, entry.path, root, "unreadable")
    if array is None:
        return Examined(diagnoses=tuple(fault.about(entry.id, entry.path) for fault in faults))
    sha256 = entry.sha256
    if with_hash:
        with (root / entry.path).open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        if sha256 != entry.sha256:
            faults.append(error("changed", "is not the file that its row was written for (sha256)", _AGAIN))
    if entry.label is not None and entry.label < 0:
        faults.append(error("label_values", f"has class {entry.label}", "count classes from 0"))
    grid, modality = entry.grid_shape, entry.modality
    faults += spacing_faults(entry.spacing, grid, modality) if entry.kind == "volume" else []
    faults += size_faults(grid, entry.kind)
    values, of_values = _values(entry, array)
    faults += of_values
    numbers, of_labels = _labels(manifest, entry, root)
    faults += of_labels
    if entry.boxes_path is not None:
        faults += _opened(manifest.open_boxes, entry, entry.boxes_path, root, "boxes")[1]
    if entry.grid_path is not None:
        faults += _opened(manifest.open_grid, entry, entry.grid_path, root, "geometry")[1]
    facts = [] if values is None else [_facts(entry, values, sha256, numbers)]
    return Examined(tuple(facts), tuple(fault.about(entry.id, entry.path) for fault in faults))


def _values(entry: Entry, array: np.ndarray) -> tuple[Values | None, list[Fault]]:
    """What the voxels are like, of the first channel, and what is wrong with them."""
    if array.dtype.kind == "f" and float_faults(array):
        code = "intensity" if np.isfinite(array.min()) and np.isfinite(array.max()) else "not_finite"
        return None, [error(code, fault, _AGAIN) for fault in float_faults(array)]
    channels = array if entry.kind == "volume" and array.ndim == 4 else array[None]
    unit = float(np.iinfo(array.dtype).max) if array.dtype.kind in "iu" else 1.0
    found = [values_of(channel, unit) for channel in channels]
    if Path(entry.path).suffix.lower() in IMAGE_SUFFIXES:  # kept as it was, not stretched by preparation
        return found[0], image_faults(values_of(array), array.dtype, entry.modality)
    faults = []
    for number, values in enumerate(found):
        for fault in prepared_faults(values, entry.kind, entry.modality):
            where = f"channel {number}: " if len(found) > 1 else ""
            faults.append(Fault(fault.code, fault.severity, where + fault.reason, fault.next_step))
    return found[0], faults


def _labels(manifest: Manifest, entry: Entry, root: Path) -> tuple[tuple[int, ...] | None, list[Fault]]:
    """Numbers of the label map; of planes, numbers from 1 of those that mark something."""
    if entry.label_path is None:
        return None, []
    labels, faults = _opened(manifest.open_label, entry, entry.label_path, root, "label_grid")
    if labels is None:
        return None, faults
    numbers = numbers_in(labels, len(entry.grid_shape))
    if labels.ndim > len(entry.grid_shape) and not 0 <= int(labels.min()) <= int(labels.max()) <= 1:
        reason = f"its label planes hold values from {labels.min()} to {labels.max()}, not only 0 and 1"
        faults.append(error("label_values", reason, _AGAIN))
    return numbers, [*faults, *label_faults(numbers, 0)]


def _opened(
    opener: Callable[[Entry], Content], entry: Entry, relative: str, root: Path, code: str
) -> tuple[Content | None, list[Fault]]:
    """What a door of the manifest gives, or why it does not."""
    try:
        return opener(entry), []
    except ManifestError as fault:
        code = code if (root / relative).exists() else "missing"
        reasons = [text.removeprefix(f"{relative} (row {entry.id!r}) ") for text in fault.faults]
        what = "" if relative == entry.path else f"{relative} "
        return None, [error(code, what + reason, _AGAIN) for reason in reasons]


def _facts(entry: Entry, values: Values, sha256: str, numbers: tuple[int, ...] | None) -> Facts:
    return Facts(
        id=entry.id,
        path=entry.path,
        kind=entry.kind,
        patient=entry.patient,
        modality=entry.modality,
        split=entry.split,
        shape=entry.shape,
        spacing=entry.spacing,
        values=values,
        digest=sha256,
        label=entry.label,
        label_numbers=numbers,
    )
