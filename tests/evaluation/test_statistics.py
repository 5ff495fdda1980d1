from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from vissl_jointssl.evaluation.results import RunResult
from vissl_jointssl.evaluation.statistics import bootstrap_interval, compare_runs, signed_rank


def run(weights: str, seed: int, cases: dict[str, float], fraction: float = 1.0) -> RunResult:
    return RunResult(weights, fraction, seed, {}, {name: {"dice": value} for name, value in cases.items()}, [], 1, 0.0)


def exact_p_value(differences: list[float]) -> float:
    """Wilcoxon's test by writing out every sign of the ranks."""
    magnitudes = [abs(d) for d in differences]
    ranks = [1 + sum(other < mine for other in magnitudes) for mine in magnitudes]
    total = sum(ranks)
    observed = min(
        sum(r for r, d in zip(ranks, differences, strict=True) if d > 0),
        sum(r for r, d in zip(ranks, differences, strict=True) if d < 0),
    )
    choices = itertools.product((0, 1), repeat=len(ranks))
    sums = [sum(r for r, chosen in zip(ranks, signs, strict=True) if chosen) for signs in choices]
    return sum(min(s, total - s) <= observed for s in sums) / len(sums)


def test_the_paired_test_is_wilcoxons() -> None:
    differences = [0.11, -0.02, 0.35, 0.07, 0.23, -0.05, 0.18]
    assert signed_rank(np.array(differences)) == pytest.approx(exact_p_value(differences))
    assert signed_rank(np.zeros(5)) == 1.0


def test_the_interval_covers_the_mean_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(40):
        low, high = bootstrap_interval(rng.normal(1.0, 2.0, 60))
        hits += low <= 1.0 <= high
    assert hits >= 34  # 38 are expected


def test_seeds_are_averaged_case_by_case_before_starts_are_compared() -> None:
    runs = [
        run("scratch", 0, {"a": 0.2, "b": 0.4, "c": 0.6}),
        run("scratch", 1, {"a": 0.4, "b": 0.4, "c": 0.2}),
        run("stage3", 0, {"a": 0.5, "b": 0.5, "c": 0.5}),
        run("stage3", 1, {"a": 0.7, "b": 0.7, "c": 0.5}),
    ]
    (comparison,) = compare_runs(runs, ["scratch", "stage3"])
    assert (comparison.weights, comparison.against, comparison.cases) == ("stage3", "scratch", 3)
    assert comparison.difference == pytest.approx(np.mean([0.6 - 0.3, 0.6 - 0.4, 0.5 - 0.4]))
    assert comparison.low <= comparison.difference <= comparison.high


def test_cases_that_either_start_leaves_undefined_are_left_out() -> None:
    runs = [run("a", 0, {"x": 0.1, "y": math.nan, "z": 0.3}), run("b", 0, {"x": 0.2, "y": 0.9, "z": 0.3})]
    (comparison,) = compare_runs(runs, ["a", "b"])
    assert comparison.cases == 2
    assert comparison.difference == pytest.approx(0.05)
    (single,) = compare_runs([run("a", 0, {"x": 0.1}), run("b", 0, {"x": 0.3})], ["a", "b"])
    assert single.difference == pytest.approx(0.2)
    assert math.isnan(single.p_value)
