"""Which labels are segmented, and label maps or planes as one mask for each.

A label map has one number a voxel, planes may overlap (see `manifest.Entry`). Both are learned alike, with a sigmoid
for each label: one loss, and the background is where nothing else is. On a map's grid a voxel then belongs to the
label with the highest probability if that is above one half; planes are decided one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from torch import Tensor

from vissl_jointssl.evaluation.task import Job
from vissl_jointssl.manifest import Entry, Manifest

_THRESHOLD = 0.5
_REMEMBERED = 2**17  # rows


class TargetError(ValueError):
    """Labels that cannot be learned; the message names every fault."""


@dataclass(frozen=True)
class Targets:
    """What is segmented.

    Attributes:
        numbers: Of the labels; of planes, counted from 1.
        overlapping: Whether the labels are planes.
        instances: Whether every number above 0 is the one target, because numbers tell objects apart, not kinds.
    """

    numbers: tuple[int, ...]
    overlapping: bool = False
    instances: bool = False

    def masks(self, labels: np.ndarray) -> np.ndarray:
        """Boolean `(n, ...)`, one mask for each number, of a map `(...)` or of planes `(L, ...)`."""
        if self.instances:
            return (labels != 0).any(axis=0, keepdims=True) if self.overlapping else (labels != 0)[None]
        if self.overlapping:
            return np.stack([labels[number - 1] != 0 for number in self.numbers])
        return np.stack([labels == number for number in self.numbers])

    def decide(self, probabilities: Tensor) -> Tensor:
        """Boolean `(b, n, H, W)` from probabilities; no voxel of a label map gets two labels."""
        chosen = probabilities > _THRESHOLD
        if self.overlapping or len(self.numbers) == 1:
            return chosen
        first = probabilities.argmax(dim=1, keepdim=True)  # the lowest label of equal ones: each voxel has one
        return chosen & chosen.new_zeros(chosen.shape).scatter_(1, first, True)


def find_targets(
    job: Job, rows: Sequence[Entry], labels: tuple[int, ...] | None, *, instances: bool = False
) -> Targets:
    """Choose the labels and see whether they can be learned.

    Args:
        job: Its training rows must hold every label.
        rows: All labelled rows, from which the labels are taken where none are named.
        labels: Named ones, or None.
        instances: See `Targets`.

    Raises:
        TargetError: If maps and planes are mixed, a plane does not exist, there is no label, or none to learn from.
        ManifestError: If a label map cannot be read.
    """
    overlapping = [entry for entry in rows if _is_planes(job.manifest, entry)]
    if overlapping and len(overlapping) < len(rows):
        raise TargetError(
            f"{len(overlapping)} of {len(rows)} rows, such as {overlapping[0].id!r}, have a plane for each label, "
            "and the others one map; prepare them alike"
        )
    if instances:
        targets = Targets((1,), bool(overlapping), instances=True)
    else:
        found = labels or tuple(sorted(set().union(*(_numbers(job.manifest, entry) for entry in rows))))
        targets = Targets(found, bool(overlapping))
    if not targets.numbers:
        raise TargetError(f"{len(rows)} rows have label maps, and all of them are empty; look at the labels")
    faults = _plane_faults(job.manifest, overlapping, targets)
    trained = set().union(*(_numbers(job.manifest, entry) for entry in job.train))
    absent = [number for number in targets.numbers if number not in trained and not (instances and trained)]
    if absent and not faults:
        faults.append(
            f"none of {len(job.train)} training rows holds label {', '.join(map(str, absent))} (they hold "
            f"{', '.join(map(str, sorted(trained))) or 'none'}); name others in options.labels, or raise fractions"
        )
    if faults:
        raise TargetError("; ".join(faults))
    return targets


@lru_cache(_REMEMBERED)  # a plan has many runs over the same rows
def numbers_by_slice(manifest: Manifest, entry: Entry) -> tuple[frozenset[int], ...]:
    """Labels above 0 in each slice of a volume, or in an image, which is one slice; planes count from 1."""
    labels = manifest.open_label(entry)
    depth = entry.grid_shape[0] if entry.kind == "volume" else 1
    if _is_planes(manifest, entry):
        present = (labels != 0).any(axis=(-2, -1)).reshape(len(labels), depth)
        return tuple(frozenset((np.flatnonzero(column) + 1).tolist()) for column in present.T)
    return tuple(_present(map_) for map_ in labels.reshape(depth, *labels.shape[-2:]))


def _present(labels: np.ndarray) -> frozenset[int]:
    if labels.dtype.kind == "u" and labels.dtype.itemsize <= 2:  # counting is ten times faster than sorting
        found = np.flatnonzero(np.bincount(labels.ravel()))
    else:
        found = np.unique(labels)
    return frozenset(number for number in found.tolist() if number > 0)


def _numbers(manifest: Manifest, entry: Entry) -> frozenset[int]:
    return frozenset().union(*numbers_by_slice(manifest, entry))


def _is_planes(manifest: Manifest, entry: Entry) -> bool:
    return manifest.open_label(entry).ndim > len(entry.grid_shape)


def _plane_faults(manifest: Manifest, rows: Sequence[Entry], targets: Targets) -> list[str]:
    if targets.instances:
        return []
    wanted = max(targets.numbers)
    counts = {entry.id: len(manifest.open_label(entry)) for entry in rows}
    few = [f"row {name!r} has {count} planes" for name, count in counts.items() if count < wanted]
    return [f"{few[0]}, and label {wanted} is a target ({len(few)} such rows); see options.labels"] if few else []
