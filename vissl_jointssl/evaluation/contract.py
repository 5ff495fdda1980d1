"""`evaluate`: every start, fraction and seed of a plan, trained and tested, and one `results.json`.

| in the folder of the evaluation | what |
|---|---|
| `results.json` | everything, written last |
| `runs/<weights>/<fraction>/<seed>/run.json` | a run that is done |
| `.../state.pt` | one that is not, see `training_loop` |
| `.../` | what the task leaves: predictions, figures |
"""

from __future__ import annotations

import hashlib
import json
import logging
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

import vissl_jointssl
from vissl_jointssl.atomic_file import write_at_once
from vissl_jointssl.evaluation.initialisation import read_initialisation
from vissl_jointssl.evaluation.jobs import device_of, job_faults, job_of, labelled_rows, missing_rows
from vissl_jointssl.evaluation.plan import Plan, PlanError
from vissl_jointssl.evaluation.results import (
    RESULTS_FILE,
    Results,
    RunResult,
    run_from_plain,
    run_to_plain,
    summarise,
    write_results,
)
from vissl_jointssl.evaluation.statistics import compare_runs
from vissl_jointssl.evaluation.task import RUN, Job, Progress, Task
from vissl_jointssl.evaluation.tasks import build_task
from vissl_jointssl.evaluation.training_loop import STATE_FILE, seed_everything
from vissl_jointssl.manifest import read_manifest

RUN_FILE = "run.json"
_log = logging.getLogger(__name__)


def evaluate(plan: Plan, progress: Progress, command: Sequence[str] = ()) -> Results:
    """Do what is left of a plan, and write its results.

    A finished run is kept as long as data, weights, options and fraction are the same; a killed one goes on after its
    last whole epoch.

    Args:
        plan: What to run.
        progress: Called with what is going on, how far it is and of how much.
        command: The command line, for the record.

    Raises:
        PlanError: If the plan does not fit the data or the weights; every fault at once, before any training.
        ManifestError: If the data cannot be read.
        CheckpointError: If weights cannot be read.
    """
    task = build_task(plan.task, plan.options)
    manifest = read_manifest(plan.manifest)
    manifest.check_files()
    starts = [read_initialisation(name, path) for name, path in plan.weights.items()]
    for start in starts:
        _log.info("%s: %s", start.name, start.account)
    device = device_of(plan.device)
    rows = labelled_rows(task, manifest)
    jobs = [
        (job_of(plan, manifest, rows, start, fraction, seed, device, progress), fraction)
        for fraction in plan.fractions
        for seed in plan.seeds
        for start in starts
    ]
    faults = missing_rows(plan, task, rows) or job_faults(task, [job for job, _ in jobs])
    if faults:
        raise PlanError("\n  - ".join([f"{plan.name} cannot be run:", *faults]))
    fingerprint = manifest.fingerprint()
    runs = []
    for number, (job, fraction) in enumerate(jobs):
        progress(f"{RUN}{job.initialisation.name}, {fraction:.0%} of labels, seed {job.seed}", number, len(jobs))
        runs.append(_once(plan, task, job, fraction, fingerprint))
    progress(f"{RUN}done", len(jobs), len(jobs))
    results = Results(
        name=plan.name,
        task=plan.task,
        main_metric=task.main_metric,
        options=dict(plan.options),
        weights={s.name: {"path": s.path, "sha256": s.sha256, "account": s.account} for s in starts},
        data={"manifest": fingerprint, "manifest_path": str(plan.manifest)}
        | {split: len(found) for split, found in rows.items()},
        made_with=_made_with(device, command),
        runs=runs,
        summary=summarise(runs),
        comparisons=[asdict(comparison) for comparison in compare_runs(runs, list(plan.weights))],
    )
    write_results(results, plan.out / RESULTS_FILE)
    return results


def _once(plan: Plan, task: Task, job: Job, fraction: float, fingerprint: str) -> RunResult:
    digest = _digest(plan, task, job, fingerprint)
    path = job.folder / RUN_FILE
    if path.is_file():
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["digest"] == digest:
            return run_from_plain(content["run"])
    _forget_other(job.folder, digest)
    began = time.monotonic()
    seed_everything(job.seed)
    outcome = task.run(job)
    run = RunResult(
        weights=job.initialisation.name,
        fraction=fraction,
        seed=job.seed,
        metrics=dict(outcome.metrics),
        cases={name: dict(case) for name, case in outcome.cases.items()},
        losses=list(outcome.losses),
        train_rows=len(job.train),
        seconds=round(time.monotonic() - began, 1),
    )
    write_at_once((json.dumps({"digest": digest, "run": run_to_plain(run)}) + "\n").encode(), path)
    (job.folder / STATE_FILE).unlink(missing_ok=True)
    return run


def _forget_other(folder: Path, digest: str) -> None:
    """A state of other data, weights or options must not be gone on with."""
    mark = folder / "digest"
    if not mark.is_file() or mark.read_text(encoding="utf-8") != digest:
        (folder / STATE_FILE).unlink(missing_ok=True)
        write_at_once(digest.encode(), mark)


def _digest(plan: Plan, task: Task, job: Job, fingerprint: str) -> str:
    facts = [
        vissl_jointssl.__version__,
        plan.task,
        repr(task),
        fingerprint,
        [entry.id for entry in job.train],
        job.initialisation.sha256,
        job.seed,
    ]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _made_with(device: torch.device, command: Sequence[str]) -> dict[str, Any]:
    return {
        "vissl_jointssl": vissl_jointssl.__version__,
        "commit": _commit(),
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        "device": torch.cuda.get_device_name() if device.type == "cuda" else f"cpu, {torch.get_num_threads()} threads",
        "command": " ".join(command) if command else " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    }


def _commit() -> str | None:
    """The commit that this package was run from, or None where it is not a checkout."""
    folder = Path(vissl_jointssl.__file__).resolve().parent
    result = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=folder, capture_output=True, text=True, check=False
    )
    return result.stdout.strip() or None
