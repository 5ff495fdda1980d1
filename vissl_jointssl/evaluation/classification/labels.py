"""The classes of rows, and whether they can be learned."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vissl_jointssl.evaluation.task import Job
from vissl_jointssl.manifest import Entry


def class_faults(job: Job) -> list[str]:
    """Classes that cannot be learned from the training rows, in words."""
    classes = {entry.label or 0 for entry in job.train}
    if len(classes) < 2:
        return [
            f"{job.initialisation.name}, seed {job.seed}: the {len(job.train)} training rows have only the classes "
            f"{sorted(classes)}; give more of them, or a larger fraction"
        ]
    wanted = {entry.label or 0 for entry in (*job.train, *job.validation, *job.test)}
    absent = sorted(set(range(max(wanted) + 1)) - classes)
    if not absent:
        return []
    return [
        f"seed {job.seed}: no training row of {len(job.train)} has the classes {absent}; "
        "give more of them, a larger fraction, or number the classes without gaps"
    ]


def class_labels(entries: Sequence[Entry]) -> np.ndarray:
    """Class numbers `(rows,)`, int64."""
    return np.array([entry.label or 0 for entry in entries], dtype=np.int64)
