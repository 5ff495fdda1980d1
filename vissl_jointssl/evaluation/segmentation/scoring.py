"""Metrics of a case, and over all cases.

A metric of several labels is `dice_3` for label 3 and `dice` for their mean. Over the cases the mean is taken label by
label first and over the labels then. NaN, see `metrics.masks`, is left out there and counted in `<metric>_undefined`;
within a case, one label's NaN makes the mean of its labels NaN, for without it cases would compare different labels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from vissl_jointssl.evaluation.metrics.masks import dice, hausdorff95, iou

OVERLAPS = {"iou": iou, "dice": dice}


def score_case(
    predicted: np.ndarray,
    truth: np.ndarray,
    numbers: Sequence[int],
    metrics: Sequence[str],
    spacing: Sequence[float] | None = None,
) -> dict[str, float]:
    """Metrics of one case.

    Args:
        predicted: Boolean `(n, ...)`.
        truth: Likewise.
        numbers: Of the n labels.
        metrics: Of `iou`, `dice` and `hd95`.
        spacing: In mm; without it `hd95` is NaN.
    """
    scores: dict[str, float] = {}
    for metric in metrics:
        values = [_score(metric, *pair, spacing) for pair in zip(predicted, truth, strict=True)]
        scores[metric] = float(np.mean(values))
        if len(numbers) > 1:
            scores |= {f"{metric}_{number}": value for number, value in zip(numbers, values, strict=True)}
    return scores


def score_all(
    cases: Mapping[str, Mapping[str, float]], numbers: Sequence[int], metrics: Sequence[str]
) -> dict[str, float]:
    """Means over the cases of `score_case`."""
    scores: dict[str, float] = {}
    for metric in metrics:
        names = [f"{metric}_{number}" for number in numbers] if len(numbers) > 1 else [metric]
        columns = {name: [case[name] for case in cases.values()] for name in names}
        means = {name: _mean_of_defined(values) for name, values in columns.items()}
        scores[metric] = _mean_of_defined(list(means.values()))
        scores |= means
        if metric not in OVERLAPS:
            scores[f"{metric}_undefined"] = float(sum(math.isnan(v) for values in columns.values() for v in values))
    return scores


def _score(metric: str, predicted: np.ndarray, truth: np.ndarray, spacing: Sequence[float] | None) -> float:
    if metric in OVERLAPS:
        return OVERLAPS[metric](predicted, truth)
    return math.nan if spacing is None else hausdorff95(predicted, truth, spacing)


def _mean_of_defined(values: Sequence[float]) -> float:
    defined = [value for value in values if not math.isnan(value)]
    return float(np.mean(defined)) if defined else math.nan
