"""Is one start better than another: differences of the same cases, their interval and a paired test."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vissl_jointssl.evaluation.results import RunResult

CONFIDENCE = 0.95
_RESAMPLES = 10_000


@dataclass(frozen=True)
class Comparison:
    """One start against another on one metric and fraction.

    Attributes:
        weights: The start.
        against: The other.
        fraction: Of labels.
        metric: Compared.
        cases: How many were scored by both.
        difference: Mean over cases of this start's value, averaged over seeds, less the other's.
        low, high: 95 % interval of it, by bootstrap over cases.
        p_value: Of Wilcoxon's signed-rank test, two-sided; 1 where no case differs, NaN for fewer than two cases.
    """

    weights: str
    against: str
    fraction: float
    metric: str
    cases: int
    difference: float
    low: float
    high: float
    p_value: float


def compare_runs(runs: Sequence[RunResult], names: Sequence[str]) -> list[Comparison]:
    """Every start against the first, for every fraction and every metric that cases have."""
    found = []
    for fraction in sorted({run.fraction for run in runs}):
        by_name = {name: [r for r in runs if r.weights == name and r.fraction == fraction] for name in names}
        metrics = list(dict.fromkeys(m for run in by_name[names[0]] for case in run.cases.values() for m in case))
        for name in names[1:]:
            for metric in metrics:
                pair = (_over_seeds(by_name[name], metric), _over_seeds(by_name[names[0]], metric))
                found.append(_compare(name, names[0], fraction, metric, *pair))
    return found


def _over_seeds(runs: Sequence[RunResult], metric: str) -> dict[str, float]:
    """Mean over the seeds by case; a case that any seed left undefined is left out."""
    values: dict[str, list[float]] = {}
    for run in runs:
        for case, scores in run.cases.items():
            values.setdefault(case, []).append(scores.get(metric, math.nan))
    means = {case: float(np.mean(scores)) for case, scores in values.items()}
    return {case: mean for case, mean in means.items() if not math.isnan(mean)}


def _compare(
    name: str, against: str, fraction: float, metric: str, mine: Mapping[str, float], other: Mapping[str, float]
) -> Comparison:
    shared = sorted(mine.keys() & other.keys())
    differences = np.array([mine[case] - other[case] for case in shared])
    if len(differences) < 2:
        mean = float(differences.mean()) if len(differences) else math.nan
        return Comparison(name, against, fraction, metric, len(shared), mean, math.nan, math.nan, math.nan)
    low, high = bootstrap_interval(differences)
    return Comparison(
        name, against, fraction, metric, len(shared), float(differences.mean()), low, high, signed_rank(differences)
    )


def bootstrap_interval(values: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """95 % percentile interval of the mean of `(n,)` values, resampled with replacement."""
    rng = np.random.default_rng(seed)
    means = [values[rng.integers(0, len(values), len(values))].mean() for _ in range(_RESAMPLES)]
    low, high = np.quantile(means, ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2))
    return float(low), float(high)


def signed_rank(differences: np.ndarray) -> float:
    """Two-sided p-value of Wilcoxon's signed-rank test; 1 where no case differs."""
    from scipy.stats import wilcoxon

    if not np.any(differences):
        return 1.0
    return float(wilcoxon(differences, zero_method="wilcox").pvalue)
