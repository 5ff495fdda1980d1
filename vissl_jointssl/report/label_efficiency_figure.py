"""A metric against the share of the labels, as in the paper's Figure 7, as PNG bytes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from vissl_jointssl.report.canvas import BLUE, GREEN, GREY, MARKERS, ORANGE, PURPLE, SERIES, SKY, VERMILION, grid, png
from vissl_jointssl.report.evaluation_records import Evaluation, Mean

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_CLASS_COLOURS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, GREY)
_DASHES = ("-", (0, (5, 2)), (0, (1, 1.2)))
_COLUMNS = 2


def label_efficiency(evaluation: Evaluation) -> bytes:
    """One line for each start: mean of the main metric over the seeds at each fraction, bars of one deviation.

    Raises:
        ValueError: If the evaluation has one fraction only, which is no line.
    """
    fractions = _needs_fractions(evaluation)
    figure, panels = grid(1, 1, 4.2)
    panel = panels[0][0]
    shift = 0.004 * (max(fractions) - min(fractions))  # so that bars do not hide each other
    for number, start in enumerate(evaluation.starts):
        points = _points(evaluation, start, evaluation.main_metric)
        offset = (number - (len(evaluation.starts) - 1) / 2) * shift
        panel.errorbar(
            [100 * (mean.fraction + offset) for mean in points],
            [mean.mean for mean in points],
            yerr=[mean.deviation or 0.0 for mean in points],
            color=SERIES[number % len(SERIES)],
            marker=MARKERS[number % len(MARKERS)],
            markersize=5,
            linewidth=1.8,
            elinewidth=1.1,
            capsize=2.5,
            label=start,
        )
    _axes(panel, evaluation.main_metric, fractions)
    panel.legend(loc="best", fontsize=9, frameon=False)
    return png(figure)


def class_efficiency(evaluation: Evaluation) -> bytes:
    """The paper's Figure 7: for each start a panel with a line for each class, and dashed black over all of them.

    Classes are the metrics that are called `<main metric>_<class>`.

    Raises:
        ValueError: If the evaluation has one fraction only, or no metrics of classes.
    """
    fractions = _needs_fractions(evaluation)
    classes = class_metrics(evaluation)
    if not classes:
        raise ValueError(f"{evaluation.name} has no metric {evaluation.main_metric}_<class>; draw label_efficiency")
    columns = min(_COLUMNS, len(evaluation.starts))
    rows = math.ceil(len(evaluation.starts) / columns)
    figure, grid_ = grid(rows, columns, 3.6 * rows + 0.25 * math.ceil(len(classes) / 5), gap=0.05)
    panels = [panel for row in grid_ for panel in row]
    highest = max((m.mean for m in evaluation.means if m.metric in classes and not math.isnan(m.mean)), default=1.0)
    for panel, start in zip(panels, evaluation.starts, strict=False):
        for number, metric in enumerate(classes):
            points = _points(evaluation, start, metric)
            panel.plot(
                [100 * mean.fraction for mean in points],
                [mean.mean for mean in points],
                color=_CLASS_COLOURS[number % len(_CLASS_COLOURS)],
                linestyle=_DASHES[number // len(_CLASS_COLOURS) % len(_DASHES)],
                linewidth=1.3,
                marker=MARKERS[number % len(MARKERS)],
                markersize=3.5,
                label=metric.removeprefix(f"{evaluation.main_metric}_"),
            )
        points = _points(evaluation, start, evaluation.main_metric)
        panel.plot(
            [100 * mean.fraction for mean in points],
            [mean.mean for mean in points],
            color="black",
            linestyle="--",
            linewidth=2.2,
            label="all classes",
        )
        panel.set_title(start, loc="left", fontsize=11, fontweight="bold")
        _axes(panel, evaluation.main_metric, fractions)
        panel.set_ylim(-0.02 * highest, 1.08 * highest)
    for panel in panels[len(evaluation.starts) :]:
        panel.set_axis_off()
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=5, fontsize=9, frameon=False
    )
    return png(figure)


def class_metrics(evaluation: Evaluation) -> list[str]:
    """Metrics of single classes, in the order of the results."""
    prefix = f"{evaluation.main_metric}_"
    names = dict.fromkeys(mean.metric for mean in evaluation.means)
    return [name for name in names if name.startswith(prefix) and not name.endswith("_undefined")]


def _needs_fractions(evaluation: Evaluation) -> Sequence[float]:
    if len(evaluation.fractions) == 1:
        raise ValueError(
            f"{evaluation.name} has one fraction, {evaluation.fractions[0]:g}; run it with fractions=[...]"
        )
    return evaluation.fractions


def _points(evaluation: Evaluation, start: str, metric: str) -> list[Mean]:
    found = [evaluation.mean(start, fraction, metric) for fraction in evaluation.fractions]
    return [mean for mean in found if mean is not None and not math.isnan(mean.mean)]


def _axes(panel: Axes, metric: str, fractions: Sequence[float]) -> None:
    panel.set_xlabel("labels of training patients, %")
    panel.set_ylabel(metric)
    panel.set_xticks([100 * fraction for fraction in fractions], [f"{100 * fraction:g}" for fraction in fractions])
    panel.grid(axis="y", color="#e3e3e3", linewidth=0.8)
