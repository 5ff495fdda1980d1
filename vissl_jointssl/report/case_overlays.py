"""Best, median and worst case of an evaluation with what every start predicted, ready to be drawn."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from vissl_jointssl.manifest import Entry, Manifest, ManifestError
from vissl_jointssl.report.evaluation_records import Evaluation, Run
from vissl_jointssl.report.overlay_figures import BoxCase, MaskCase, box_overlays, mask_overlays
from vissl_jointssl.report.paired_figures import by_case, case_metric
from vissl_jointssl.report.predictions import (
    PredictionError,
    ScoredBox,
    predicted_boxes,
    predicted_masks,
    read_picture,
    true_boxes,
    true_masks,
)

MASK_TASKS, BOX_TASKS = ("segmentation_2d", "segmentation_3d"), ("detection_2d",)
SMALLER_IS_BETTER = ("hd95",)


def draw_overlays(evaluation: Evaluation, manifest: Manifest) -> tuple[bytes | None, list[str]]:
    """The figure of an evaluation at its largest fraction and first seed.

    Returns:
        The PNG, or None where not one prediction is there, and a sentence for everything that is missing.
    """
    metric = case_metric(evaluation)
    rows = {entry.id: entry for entry in manifest.entries}
    fraction = evaluation.fractions[-1]
    seed = min(run.seed for run in evaluation.runs if run.fraction == fraction)
    runs = {s: run for s in evaluation.starts for run in evaluation.of(s, fraction) if run.seed == seed}
    chosen = [(word, case) for word, case in telling_cases(evaluation) if case in rows] if metric else []
    if metric is None or not chosen:
        return None, [f"{evaluation.name}: no case of its results is a row of {manifest.path}, so none is drawn"]
    missing: list[str] = []
    mask_cases: list[MaskCase] = []
    box_cases: list[BoxCase] = []
    for word, case in chosen:
        scores = {start: _score(run, case, metric) for start, run in runs.items()}
        try:
            if evaluation.task in BOX_TASKS:
                box_cases.append(_box_case(evaluation, manifest, rows[case], runs, f"{word}: {case}", scores, missing))
            else:
                mask_cases.append(
                    _mask_case(evaluation, manifest, rows[case], runs, f"{word}: {case}", scores, missing)
                )
        except ManifestError as error:
            missing += error.faults
    found: list[object] = [p for one in mask_cases for p in one.predicted.values()]
    found += [p for one in box_cases for p in one.predicted.values()]
    if all(prediction is None for prediction in found):
        return None, [f"{evaluation.name}: no prediction is left, so none is drawn", *missing]
    return (mask_overlays(mask_cases) if mask_cases else box_overlays(box_cases)), missing


def telling_cases(evaluation: Evaluation) -> list[tuple[str, str]]:
    """`("best", id), ("median", id), ("worst", id)` by the mean over all starts, at the largest fraction."""
    metric = case_metric(evaluation)
    if metric is None:
        return []
    fraction = evaluation.fractions[-1]
    means = by_case([run for start in evaluation.starts for run in evaluation.of(start, fraction)], metric)
    order = sorted(means, key=lambda case: (means[case], case), reverse=metric not in SMALLER_IS_BETTER)
    places = {"best": 0, "median": len(order) // 2, "worst": len(order) - 1} if order else {}
    found: dict[str, str] = {}
    for word, place in places.items():
        found.setdefault(order[place], word)
    return [(word, case) for case, word in found.items()]


def _mask_case(
    evaluation: Evaluation,
    manifest: Manifest,
    entry: Entry,
    runs: dict[str, Run],
    title: str,
    scores: dict[str, str],
    missing: list[str],
) -> MaskCase:
    truth, numbers = true_masks(manifest, entry, evaluation)
    predicted: dict[str, np.ndarray | None] = {}
    for start, run in runs.items():
        try:
            predicted[start] = predicted_masks(evaluation, run, manifest, entry, numbers)
        except PredictionError as error:
            predicted[start] = None
            missing.append(f"{evaluation.name}: {error}")
    if entry.kind == "image":
        return MaskCase(title, read_picture(manifest, entry), truth, predicted, scores)
    place = _largest_slice(truth)
    return MaskCase(
        title=f"{title}, slice {place}",
        picture=read_picture(manifest, entry, place, int(evaluation.options.get("channel", 0))),
        truth=truth[:, place],
        predicted={start: None if masks is None else masks[:, place] for start, masks in predicted.items()},
        scores=scores,
        height_by_width=entry.spacing[1] / entry.spacing[2] if entry.spacing else 1.0,
    )


def _box_case(
    evaluation: Evaluation,
    manifest: Manifest,
    entry: Entry,
    runs: dict[str, Run],
    title: str,
    scores: dict[str, str],
    missing: list[str],
) -> BoxCase:
    predicted: dict[str, Sequence[ScoredBox] | None] = {}
    for start, run in runs.items():
        try:
            predicted[start] = predicted_boxes(evaluation, run, entry)
        except PredictionError as error:
            predicted[start] = None
            missing.append(f"{evaluation.name}: {error}")
    names = [str(name) for name in evaluation.options.get("classes", ())]
    return BoxCase(title, read_picture(manifest, entry), true_boxes(manifest, entry), predicted, scores, names)


def _largest_slice(truth: np.ndarray) -> int:
    """Where most voxels are true; the middle where none is."""
    areas = truth.any(axis=0).sum(axis=(1, 2))
    return int(areas.argmax()) if areas.any() else truth.shape[1] // 2


def _score(run: Run, case: str, metric: str) -> str:
    value = run.cases.get(case, {}).get(metric, math.nan)
    return f"{metric} undefined" if math.isnan(value) else f"{metric} {value:.3f}"
