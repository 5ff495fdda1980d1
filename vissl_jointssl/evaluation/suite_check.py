"""Whether a plan can be run, asked before any plan of a suite is."""

from __future__ import annotations

import torch

from vissl_jointssl.evaluation.fractions import nested_subset
from vissl_jointssl.evaluation.initialisation import read_initialisation
from vissl_jointssl.evaluation.plan import Plan
from vissl_jointssl.evaluation.task import Job
from vissl_jointssl.evaluation.tasks import build_task
from vissl_jointssl.manifest import Entry, read_manifest


def plan_faults(plan: Plan) -> list[str]:
    """What `evaluate` would refuse a plan for: options, data, weights, and that they do not fit; nothing is trained.

    A fault of the labels is looked for at the smallest fraction, of which every larger one has all.
    """
    try:
        task = build_task(plan.task, plan.options)
    except ValueError as error:
        return [str(error)]
    faults: list[str] = []
    rows: dict[str, tuple[Entry, ...]] = {}
    try:
        manifest = read_manifest(plan.manifest)
        manifest.check_files()
        for split in ("train", "val", "test"):
            found = manifest.select(splits=(split,))
            rows[split] = tuple(entry for entry in found if entry.kind in task.kinds and task.is_labelled(entry))
            if not rows[split] and split != "val":
                faults.append(
                    f"{plan.manifest}: no row of {' or '.join(task.kinds)} with the labels of {plan.task} is in the "
                    f"split {split!r}"
                )
    except ValueError as error:
        faults.append(str(error))
    if plan.device == "gpu" and not torch.cuda.is_available():
        faults.append("device is gpu, but PyTorch sees none; set device=cpu or device=auto")
    fits = not faults
    for name, path in plan.weights.items():
        try:
            start = read_initialisation(name, path)
        except (ValueError, OSError) as error:
            faults.append(f"weights {name}: {error}")
            continue
        if not fits:
            continue
        for seed in plan.seeds:
            train = nested_subset(rows["train"], min(plan.fractions), seed)
            folder = plan.out / "runs" / name / f"{min(plan.fractions):g}" / str(seed)
            device = torch.device("cpu")
            job = Job(manifest, train, rows["val"], rows["test"], start, seed, device, folder, _silent)
            faults += task.faults(job)
    return list(dict.fromkeys(faults))


def _silent(what: str, done: int, total: int) -> None:
    """Nobody watches a check."""
