"""What a page knows of evaluations and suites: plain data, read by `evaluations`, drawn by everything else here."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Run:
    """One training run, see `evaluation.results.RunResult`; NaN is undefined."""

    weights: str
    fraction: float
    seed: int
    metrics: Mapping[str, float]
    cases: Mapping[str, Mapping[str, float]]
    losses: tuple[float, ...]
    train_rows: int
    seconds: float


@dataclass(frozen=True)
class Mean:
    """Mean and deviation of a metric; `seeds` are those in the mean, `undefined` those that gave NaN."""

    weights: str
    fraction: float
    metric: str
    mean: float
    deviation: float | None
    seeds: int
    undefined: int


@dataclass(frozen=True)
class Difference:
    """A start against the first on the same cases, see `evaluation.statistics.Comparison`."""

    weights: str
    against: str
    fraction: float
    metric: str
    cases: int
    difference: float
    low: float
    high: float
    p_value: float


@dataclass(frozen=True)
class Evaluation:
    """One `results.json`.

    Attributes:
        path: The file; its runs lie beside it.
        name: Of the evaluation.
        task: Of the evaluation.
        main_metric: The one to look at first.
        options: The task's.
        weights: By name of the start: `path`, `sha256`, `account`.
        data: `manifest` (its fingerprint), how many rows each split has, perhaps `manifest_path`.
        made_with: Versions, commit, machine, command.
        runs: All of them.
        means: By start, fraction and metric.
        differences: Each start against the first.
        suite: That it was run in, or nothing.
    """

    path: Path
    name: str
    task: str
    main_metric: str
    options: Mapping[str, Any]
    weights: Mapping[str, Mapping[str, Any]]
    data: Mapping[str, Any]
    made_with: Mapping[str, Any]
    runs: tuple[Run, ...]
    means: tuple[Mean, ...]
    differences: tuple[Difference, ...] = ()
    suite: str = ""

    @property
    def title(self) -> str:
        """Its name, after that of the suite: two suites may have the same evaluation with other starts."""
        return f"{self.suite}: {self.name}" if self.suite else self.name

    @property
    def starts(self) -> tuple[str, ...]:
        """Names of the starts; the first is what the others are compared with."""
        return tuple(self.weights)

    @property
    def fractions(self) -> tuple[float, ...]:
        """Of the labels, ascending."""
        return tuple(sorted({run.fraction for run in self.runs}))

    def of(self, start: str, fraction: float) -> list[Run]:
        """The runs of a start and a fraction, one for each seed."""
        return [run for run in self.runs if run.weights == start and run.fraction == fraction]

    def mean(self, start: str, fraction: float, metric: str) -> Mean | None:
        """One cell."""
        wanted = (start, fraction, metric)
        return next((mean for mean in self.means if (mean.weights, mean.fraction, mean.metric) == wanted), None)

    def seed_differences(self, start: str, fraction: float, metric: str) -> list[float]:
        """A start's metric less the first start's, seed by seed, where both have it and it is defined."""
        mine, first = (
            {run.seed: run.metrics.get(metric, math.nan) for run in self.of(name, fraction)}
            for name in (start, self.starts[0])
        )
        differences = [mine[seed] - first[seed] for seed in sorted(mine.keys() & first.keys())]
        return [difference for difference in differences if not math.isnan(difference)]

    def folder(self, run: Run) -> Path:
        """Where a run left its predictions."""
        return self.path.parent / "runs" / run.weights / f"{run.fraction:g}" / str(run.seed)


@dataclass(frozen=True)
class SuiteRecord:
    """One `suite.json`: what became of a suite."""

    path: Path
    name: str
    failed: Mapping[str, str] = field(default_factory=dict)
    left_out: Sequence[str] = ()
    parameters: Mapping[str, int] = field(default_factory=dict)
