"""The tables of an evaluation: its main metric beside the paper's, paired differences, and everything else."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from vissl_jointssl.report.contents import Cell
from vissl_jointssl.report.evaluation_records import Difference, Evaluation, Mean
from vissl_jointssl.report.page import to_table
from vissl_jointssl.report.paper_numbers import POOLED, paper_number, paper_numbers

_NO_PAIRS = ("", "", "")
_LISTED_SEEDS = 5  # of more, the smallest and the largest difference are told


def main_table(evaluation: Evaluation) -> str:
    """Starts by fractions: mean ± deviation, seeds, differences to the first start, the paper's number."""
    metric, first = evaluation.main_metric, evaluation.starts[0]
    paired = any(difference.metric == metric for difference in evaluation.differences)
    compared = any(number.metric == metric for number in paper_numbers(evaluation.name))
    several = len(evaluation.starts) > 1
    columns = ["start", "labels", metric, "seeds"]
    columns += [f"less {first}, seed by seed"] if several else []
    columns += [f"less {first}", "95 % interval", "p"] if paired else []
    columns += ["the paper"] if compared else []
    rows: list[list[Cell]] = []
    for fraction in evaluation.fractions:
        for start in evaluation.starts:
            mean = evaluation.mean(start, fraction, metric)
            row: list[Cell] = [start, share(fraction), spread(mean), str(mean.seeds if mean else 0)]
            if several:
                row.append("" if start == first else _by_seed(evaluation.seed_differences(start, fraction, metric)))
            if paired:
                row += _difference_cells(_difference(evaluation, start, fraction, metric))
            if compared:
                number = paper_number(evaluation.name, metric, fraction, start)
                row.append("" if number is None else _percent(number.mean, number.deviation))
            rows.append(row)
    caption = f"{metric}: mean ± standard deviation over the seeds."
    if paired:
        caption += (
            f" Difference to {first} on the same cases, each with its mean over these seeds: bootstrap interval and "
            "Wilcoxon's signed-rank test over cases. Whether other seeds would say so, the ones seed by seed tell."
        )
    return to_table(columns, rows, caption)


def other_metrics_table(evaluation: Evaluation) -> str:
    """Every other metric, a row for each start and fraction; empty if there is none."""
    names = dict.fromkeys(mean.metric for mean in evaluation.means if mean.metric != evaluation.main_metric)
    if not names:
        return ""
    rows: list[list[Cell]] = [
        [metric, start, share(fraction), spread(evaluation.mean(start, fraction, metric))]
        for metric in names
        for fraction in evaluation.fractions
        for start in evaluation.starts
    ]
    return to_table(["metric", "start", "labels", "mean ± deviation"], rows)


def difference_table(evaluation: Evaluation) -> str:
    """Paired differences of every metric of cases but the main one, which stand in the main table; may be empty."""
    rows: list[list[Cell]] = [
        [d.metric, d.weights, share(d.fraction), *_difference_cells(d), str(d.cases)]
        for d in evaluation.differences
        if d.metric != evaluation.main_metric
    ]
    columns = ["metric", "start", "labels", f"less {evaluation.starts[0]}", "95 % interval", "p", "cases"]
    return to_table(columns, rows) if rows else ""


def paper_table(name: str) -> str:
    """All that the paper has on an evaluation, methods that cannot be run here included; empty if it has nothing."""
    rows: list[list[Cell]] = [
        [number.method, str(number.table), share(number.fraction), _percent(number.mean, number.deviation)]
        for number in paper_numbers(name)
    ]
    return to_table(["method", "table", "labels", "the paper"], rows) if rows else ""


def pooled_table(name: str, evaluations: Sequence[Evaluation]) -> str:
    """What the paper averages over several evaluations (LUNA2016-v2 over batch sizes): over all of their runs."""
    members = [evaluation for evaluation in evaluations if evaluation.name in POOLED[name]]
    metric = members[0].main_metric
    rows: list[list[Cell]] = []
    starts = dict.fromkeys(start for evaluation in members for start in evaluation.starts)
    for start in starts:
        values = [run.metrics.get(metric, math.nan) for e in members for run in e.of(start, 1.0)]
        defined = [value for value in values if not math.isnan(value)]
        deviation = float(np.std(defined, ddof=1)) if len(defined) > 1 else None
        mean = float(np.mean(defined)) if defined else math.nan
        undefined = len(values) - len(defined)
        number = paper_number(name, metric, 1.0, start)
        rows.append(
            [
                start,
                spread(Mean(start, 1.0, metric, mean, deviation, len(defined), undefined)),
                str(len(values)),
                "" if number is None else _percent(number.mean, number.deviation),
            ]
        )
    caption = f"{metric}, mean ± standard deviation over all runs of {', '.join(e.name for e in members)}."
    return to_table(["start", metric, "runs", "the paper"], rows, caption)


def undefined_notes(evaluation: Evaluation) -> list[str]:
    """A sentence for every metric that some case or run left undefined."""
    found = [
        f"{mean.metric} of {mean.weights} at {share(mean.fraction)} of the labels is undefined in {mean.undefined} of "
        f"{mean.undefined + mean.seeds} runs, which are left out of its mean."
        for mean in evaluation.means
        if mean.undefined
    ]
    counts: dict[tuple[str, str], list[int]] = {}
    for run in evaluation.runs:
        for scores in run.cases.values():
            for metric, value in scores.items():
                count = counts.setdefault((run.weights, metric), [0, 0])
                count[0] += math.isnan(value)
                count[1] += 1
    found += [
        f"{metric} of {start} is undefined for {undefined} of {every} cases over all runs; they are in no mean."
        for (start, metric), (undefined, every) in counts.items()
        if undefined
    ]
    return found


def share(fraction: float) -> str:
    """A fraction of the labels as people write it."""
    return f"{100 * fraction:g} %"


def spread(mean: Mean | None) -> str:
    """`0.849 ± 0.007`, `undefined (2)` where all of two runs are, and what was left out of the others."""
    if mean is None:
        return "not measured"
    if math.isnan(mean.mean):
        return f"undefined ({mean.undefined})"
    text = _four(mean.mean) + ("" if mean.deviation is None else f" ± {_four(mean.deviation)}")
    return text + (f", undefined ({mean.undefined})" if mean.undefined else "")


def _four(value: float) -> str:
    return f"{value:.4f}" if abs(value) < 10 else f"{value:.2f}"


def _percent(mean: float, deviation: float | None) -> str:
    """The paper's percent on the scale of ours."""
    return f"{mean / 100:.4f}" + ("" if deviation is None else f" ± {deviation / 100:.4f}")


def _difference(evaluation: Evaluation, start: str, fraction: float, metric: str) -> Difference | None:
    wanted = (start, fraction, metric)
    return next((d for d in evaluation.differences if (d.weights, d.fraction, d.metric) == wanted), None)


def _by_seed(differences: Sequence[float]) -> str:
    if len(differences) <= _LISTED_SEEDS:
        return ", ".join(f"{difference:+.3f}" for difference in differences)
    return f"{min(differences):+.3f} to {max(differences):+.3f}"


def _difference_cells(difference: Difference | None) -> tuple[str, str, str]:
    if difference is None:
        return _NO_PAIRS
    if math.isnan(difference.difference):
        return ("undefined", "", "")
    interval = "" if math.isnan(difference.low) else f"{difference.low:+.4f} to {difference.high:+.4f}"
    p = (
        ""
        if math.isnan(difference.p_value)
        else "<\u00a00.0001"
        if difference.p_value < 1e-4
        else f"{difference.p_value:.4f}"
    )
    return (f"{difference.difference:+.4f}", interval, p)
