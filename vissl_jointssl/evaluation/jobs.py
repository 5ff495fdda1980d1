"""The jobs of a plan, and what is wrong with them before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from vissl_jointssl.evaluation.fractions import nested_subset
from vissl_jointssl.evaluation.initialisation import Initialisation
from vissl_jointssl.evaluation.plan import Plan, PlanError
from vissl_jointssl.evaluation.task import Job, Progress, Task
from vissl_jointssl.manifest import Entry, Manifest

Rows = Mapping[str, tuple[Entry, ...]]  # by split


def labelled_rows(task: Task, manifest: Manifest) -> dict[str, tuple[Entry, ...]]:
    """The rows that a task reads and that have its labels, by split."""
    rows = {split: manifest.select(splits=(split,)) for split in ("train", "val", "test")}
    return {
        split: tuple(entry for entry in found if entry.kind in task.kinds and task.is_labelled(entry))
        for split, found in rows.items()
    }


def missing_rows(plan: Plan, task: Task, rows: Rows) -> list[str]:
    """Splits that must have rows and have none, in words."""
    return [
        f"{plan.manifest}: no row of {' or '.join(task.kinds)} with the labels of {plan.task} is in the split {split!r}"
        for split in ("train", "test")
        if not rows[split]
    ]


def job_of(
    plan: Plan,
    manifest: Manifest,
    rows: Rows,
    start: Initialisation,
    fraction: float,
    seed: int,
    device: torch.device,
    progress: Progress,
) -> Job:
    """One training run of a plan."""
    folder = plan.out / "runs" / start.name / f"{fraction:g}" / str(seed)
    train = nested_subset(rows["train"], fraction, seed)
    return Job(manifest, train, rows["val"], rows["test"], start, seed, device, folder, progress)


def job_faults(task: Task, jobs: Sequence[Job]) -> list[str]:
    """Why jobs cannot be done, in words, each once."""
    return list(dict.fromkeys(fault for job in jobs for fault in task.faults(job)))


def device_of(wanted: str) -> torch.device:
    """The device of a plan.

    Raises:
        PlanError: If it is a GPU and there is none.
    """
    if wanted == "gpu" and not torch.cuda.is_available():
        raise PlanError("device is gpu, but PyTorch sees none; set device=cpu or device=auto")
    return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")
