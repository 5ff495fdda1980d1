"""Whether a plan can be run, asked before any plan of a suite is."""

from __future__ import annotations

import torch

from vissl_jointssl.evaluation.initialisation import read_initialisation
from vissl_jointssl.evaluation.jobs import Rows, device_of, job_faults, job_of, labelled_rows, missing_rows
from vissl_jointssl.evaluation.plan import Plan, PlanError
from vissl_jointssl.evaluation.tasks import build_task
from vissl_jointssl.manifest import read_manifest


def plan_faults(plan: Plan) -> list[str]:
    """What `evaluate` would refuse a plan for: options, data, weights, and that they do not fit; nothing is trained.

    A fault of the labels is looked for at the smallest fraction, of which every larger one has all.
    """
    try:
        task = build_task(plan.task, plan.options)
    except ValueError as error:
        return [str(error)]
    faults: list[str] = []
    rows: Rows = {}
    try:
        manifest = read_manifest(plan.manifest)
        manifest.check_files()
        rows = labelled_rows(task, manifest)
        faults += missing_rows(plan, task, rows)
    except ValueError as error:
        faults.append(str(error))
    try:
        device_of(plan.device)
    except PlanError as error:
        faults.append(str(error))
    fits = not faults
    cpu = torch.device("cpu")
    for name, path in plan.weights.items():
        try:
            start = read_initialisation(name, path)
        except (ValueError, OSError) as error:
            faults.append(f"weights {name}: {error}")
            continue
        if fits:
            fraction = min(plan.fractions)
            jobs = [job_of(plan, manifest, rows, start, fraction, seed, cpu, _silent) for seed in plan.seeds]
            faults += job_faults(task, jobs)
    return list(dict.fromkeys(faults))


def _silent(what: str, done: int, total: int) -> None:
    """Nobody watches a check."""
