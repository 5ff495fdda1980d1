"""`results.json`: every number of an evaluation and what it was made from."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vissl_jointssl.atomic_file import write_at_once

RESULTS_FILE = "results.json"
_VERSION = 1


class ResultsError(ValueError):
    """A results file that cannot be used; the message names it and the next step."""


@dataclass(frozen=True)
class RunResult:
    """One training run: a start, a fraction of the labels and a seed.

    Attributes:
        weights: Name of the start.
        fraction: Share of the labelled training patients.
        seed: Of the run.
        metrics: Over all test cases.
        cases: Metrics by case.
        losses: Mean training loss of each epoch.
        train_rows: How many rows it learned from.
        seconds: Wall time.
    """

    weights: str
    fraction: float
    seed: int
    metrics: dict[str, float]
    cases: dict[str, dict[str, float]]
    losses: list[float]
    train_rows: int
    seconds: float


@dataclass(frozen=True)
class Summary:
    """Mean and sample standard deviation of a metric over the seeds; deviation is None for one seed."""

    weights: str
    fraction: float
    metric: str
    mean: float
    deviation: float | None
    seeds: int


@dataclass(frozen=True)
class Results:
    """All of it.

    Attributes:
        name: Of the evaluation.
        task: Of the evaluation.
        main_metric: The one to look at first.
        options: The task's.
        weights: By name: `path`, `sha256` and `account`.
        data: `manifest` (its fingerprint), `manifest_path`, and how many rows train, validate and test.
        made_with: Versions, commit, machine, device, command.
        runs: See `RunResult`.
        summary: See `Summary`.
        comparisons: See `statistics.Comparison`, as dictionaries with `fraction`, `metric`, `weights` and `against`.
    """

    name: str
    task: str
    main_metric: str
    options: dict[str, Any]
    weights: dict[str, dict[str, Any]]
    data: dict[str, Any]
    made_with: dict[str, Any]
    runs: list[RunResult]
    summary: list[Summary] = field(default_factory=list)
    comparisons: list[dict[str, Any]] = field(default_factory=list)


def summarise(runs: Sequence[RunResult]) -> list[Summary]:
    """Mean and deviation per start, fraction and metric, in order of appearance; NaN runs are left out."""
    found: dict[tuple[str, float, str], list[float]] = {}
    for run in runs:
        for metric, value in run.metrics.items():
            found.setdefault((run.weights, run.fraction, metric), []).append(value)
    rows = []
    for (weights, fraction, metric), values in found.items():
        finite = [value for value in values if not math.isnan(value)]
        mean = float(np.mean(finite)) if finite else math.nan
        deviation = float(np.std(finite, ddof=1)) if len(finite) > 1 else None
        rows.append(Summary(weights, fraction, metric, mean, deviation, len(finite)))
    return rows


def write_results(results: Results, path: Path) -> None:
    """Write in one step; NaN becomes null, which JSON knows."""
    content = _plain({"version": _VERSION, **asdict(results)})
    write_at_once((json.dumps(content, indent=1, allow_nan=False) + "\n").encode(), path)


def read_results(path: Path) -> Results:
    """Read a file of `write_results`.

    Raises:
        ResultsError: If it is missing, damaged, or of another version.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.pop("version") != _VERSION:
            raise ResultsError(f"{path}: was written by another version; run `jointssl evaluate` again")
        content["runs"] = [run_from_plain(run) for run in content["runs"]]
        content["summary"] = [
            Summary(**{**row, "mean": math.nan if row["mean"] is None else row["mean"]}) for row in content["summary"]
        ]
        return Results(**content)
    except FileNotFoundError:
        raise ResultsError(f"{path}: does not exist; `jointssl evaluate` writes it") from None
    except (OSError, KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
        raise ResultsError(f"{path}: is no results file ({error}); run `jointssl evaluate` again") from None


def run_to_plain(run: RunResult) -> dict[str, Any]:
    """A run as JSON takes it."""
    plain = _plain(asdict(run))
    assert isinstance(plain, dict)
    return plain


def run_from_plain(plain: dict[str, Any]) -> RunResult:
    """The inverse of `run_to_plain`."""
    metrics = _numbers(plain["metrics"])
    cases = {name: _numbers(case) for name, case in plain["cases"].items()}
    return RunResult(**{**plain, "metrics": metrics, "cases": cases})


def _numbers(values: dict[str, float | None]) -> dict[str, float]:
    return {name: math.nan if value is None else float(value) for name, value in values.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, np.integer):
        return int(value)
    return str(value) if isinstance(value, Path) else value
