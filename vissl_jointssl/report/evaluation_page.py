"""One HTML page of any number of evaluations: tables, figures, and what each was made from."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from html import escape
from pathlib import Path

from vissl_jointssl.manifest import ManifestError
from vissl_jointssl.report.case_overlays import BOX_TASKS, MASK_TASKS, draw_overlays
from vissl_jointssl.report.contents import Cell
from vissl_jointssl.report.evaluation_records import Evaluation, SuiteRecord
from vissl_jointssl.report.evaluation_tables import (
    difference_table,
    main_table,
    other_metrics_table,
    paper_table,
    pooled_table,
    share,
    undefined_notes,
)
from vissl_jointssl.report.label_efficiency_figure import class_efficiency, class_metrics, label_efficiency
from vissl_jointssl.report.overlay_figures import LEAST_SCORE
from vissl_jointssl.report.page import document, folded, notes, picture, to_table
from vissl_jointssl.report.paired_figures import case_metric, case_scatter, paired_differences, training_losses
from vissl_jointssl.report.paper_numbers import PARAMETERS, POOLED
from vissl_jointssl.report.predictions import find_manifest

_SHOWN_MISSING = 5


def render_evaluations(
    evaluations: Sequence[Evaluation], suites: Sequence[SuiteRecord] = (), manifests: Sequence[Path] = ()
) -> str:
    """The page as HTML text.

    Args:
        evaluations: In the order to show.
        suites: What was run as a suite: what failed or was left out of it is said first.
        manifests: Where the data of overlay figures may lie.

    Raises:
        ManifestError: If one of `manifests` cannot be read.
    """
    warnings = [f"{s.name}: {name} failed: {fault}" for s in suites for name, fault in s.failed.items()]
    warnings += [
        f"{s.name}: no weights were given for {', '.join(s.left_out)}, which the suite compares too."
        for s in suites
        if s.left_out
    ]
    parts: list[str] = []
    for evaluation in evaluations:
        parts += _section(evaluation, manifests)
    for name, members in POOLED.items():
        if sum(evaluation.name in members for evaluation in evaluations) > 1:
            parts += [f"<h2>{escape(name)}, all batch sizes</h2>", pooled_table(name, evaluations)]
    for suite in suites:
        if suite.parameters:
            parts += [f"<h2>{escape(suite.name)}, parameters</h2>", _parameters(suite)]
    title = suites[0].name if len(suites) == 1 else "evaluations"
    count = sum(len(evaluation.runs) for evaluation in evaluations)
    ran = f"{len(evaluations)} evaluation{'s' if len(evaluations) != 1 else ''}, {count} training runs."
    lead = f"{ran} Larger is better unless a metric says otherwise."
    return document(title, parts, lead=lead if evaluations else "", warnings=warnings)


def _section(evaluation: Evaluation, manifests: Sequence[Path]) -> list[str]:
    sizes = [f"{evaluation.data[split]} {split}" for split in ("train", "val", "test") if split in evaluation.data]
    seeds = len({run.seed for run in evaluation.runs})
    parts = [
        f"<h2>{escape(evaluation.title)}</h2>",
        f"<p>{escape(f'{evaluation.task}, rows: ' + ', '.join(sizes) + f'; {seeds} seeds.')}</p>",
        main_table(evaluation),
    ]
    if sentences := undefined_notes(evaluation):
        parts.append(notes(sentences))
    parts += _figures(evaluation)
    parts += _overlays(evaluation, manifests)
    tables = {
        "Other metrics": other_metrics_table(evaluation),
        "Paired differences of other metrics": difference_table(evaluation),
        "All that the paper reports": paper_table(evaluation.name),
        "Weights, data, options and command": _provenance(evaluation),
    }
    return parts + [folded(summary, [table]) for summary, table in tables.items() if table]


def _figures(evaluation: Evaluation) -> list[str]:
    metric, fraction = case_metric(evaluation), evaluation.fractions[-1]
    name, first = evaluation.name, evaluation.starts[0]
    found: list[str] = []
    if len(evaluation.fractions) > 1:
        alt = f"{evaluation.main_metric} of {name} against the share of labels, a line for each start: " + "; ".join(
            f"{start} {_line(evaluation, start)}" for start in evaluation.starts
        )
        found.append(picture(label_efficiency(evaluation), alt, "Label efficiency. Bars: one standard deviation."))
        if class_metrics(evaluation):
            alt = f"{evaluation.main_metric} of every class of {name} against the share of labels, by start"
            found.append(picture(class_efficiency(evaluation), alt, "By class; dashed black: all classes."))
    if metric and len(evaluation.starts) > 1:
        where = f"at {share(fraction)} of the labels, mean over the seeds"
        alt = f"Differences of {metric} to {first} for each case of {name}, sorted, a panel for each start"
        found.append(
            picture(
                paired_differences(evaluation, metric, fraction),
                alt,
                f"Differences to {first} for each case, {where}. Blue: higher; vermilion: lower; dashed: mean.",
            )
        )
        alt = f"{metric} of each case of {name}: each start against {first}, with the diagonal"
        found.append(picture(case_scatter(evaluation, metric, fraction), alt, f"Each case against {first}, {where}."))
    if any(run.losses for start in evaluation.starts for run in evaluation.of(start, fraction)):
        alt = f"Training loss of {name} for each epoch, a line for each start"
        caption = f"Training loss at {share(fraction)} of the labels. Thick: mean over the seeds; thin: each seed."
        found.append(picture(training_losses(evaluation, fraction), alt, caption))
    return found


def _overlays(evaluation: Evaluation, manifests: Sequence[Path]) -> list[str]:
    if evaluation.task not in (*MASK_TASKS, *BOX_TASKS):
        return []
    try:
        manifest = find_manifest(evaluation, manifests)
    except ManifestError as error:
        return [notes([f"No pictures of predictions: {error}"])]
    if manifest is None:
        sentence = "No pictures of predictions: the data is not here. Give its manifest.csv with --manifest."
        return [notes([sentence])]
    figure, missing = draw_overlays(evaluation, manifest)
    shown = missing[:_SHOWN_MISSING]
    if len(missing) > len(shown):
        shown.append(f"and {len(missing) - len(shown)} more")
    parts = [notes(shown)] if shown else []
    if figure is None:
        return parts
    what = f"{evaluation.name}: truth and prediction of the best, median and worst case by {case_metric(evaluation)}"
    if evaluation.task in BOX_TASKS:
        caption = f"Green: truth. Red: predictions that score {LEAST_SCORE:g} and more."
    else:
        caption = "Green outline: truth. Red outline: prediction. Red tint: only predicted. Blue tint: only true."
    caption += " Cases by the mean over all starts; predictions of the first seed at the largest share of labels."
    return [*parts, picture(figure, f"{what}, starts side by side", caption)]


def _line(evaluation: Evaluation, start: str) -> str:
    means = [evaluation.mean(start, fraction, evaluation.main_metric) for fraction in evaluation.fractions]
    return ", ".join(f"{m.mean:.3f} at {share(m.fraction)}" for m in means if m is not None and not math.isnan(m.mean))


def _provenance(evaluation: Evaluation) -> str:
    rows: list[list[Cell]] = []
    for start, facts in evaluation.weights.items():
        rows.append([f"weights {start}", _words(facts.get("path")) or "none"])
        rows += [[f"{start}, {key}", _words(facts[key])] for key in ("sha256", "account") if facts.get(key)]
    rows += [[f"data, {key}", _words(value)] for key, value in evaluation.data.items()]
    rows += [[f"options.{key}", _words(value)] for key, value in evaluation.options.items()]
    rows += [[key, _words(value)] for key, value in evaluation.made_with.items()]
    rows.append(["results", str(evaluation.path)])
    return to_table(["what", "value"], rows)


def _words(value: object) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value)


def _parameters(suite: SuiteRecord) -> str:
    rows: list[list[Cell]] = [[f"preset {name}", f"{count / 1e6:.2f} M"] for name, count in suite.parameters.items()]
    rows += [[f"the paper, {name}", f"{millions:.2f} M"] for name, millions in PARAMETERS.items()]
    return to_table(["model", "parameters"], rows, "f_intra and f_inter; the paper's `Our` is the preset `released`.")
