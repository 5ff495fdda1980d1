"""Starts on the same cases: sorted differences, one against the other, and the losses of training, as PNG bytes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from vissl_jointssl.report.canvas import BLUE, GREY, MARKERS, SERIES, VERMILION, grid, png
from vissl_jointssl.report.evaluation_records import Evaluation, Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLUMNS = 3
_MANY = 60  # cases; more are drawn smaller


def case_metric(evaluation: Evaluation) -> str | None:
    """What starts are paired by: the main metric where cases have it, else their first metric, else nothing."""
    names = [name for run in evaluation.runs for case in run.cases.values() for name in case]
    if evaluation.main_metric in names:
        return evaluation.main_metric
    return names[0] if names else None


def by_case(runs: Sequence[Run], metric: str) -> dict[str, float]:
    """Mean over the runs of each case that all of them scored."""
    values: dict[str, list[float]] = {}
    for run in runs:
        for case, scores in run.cases.items():
            values.setdefault(case, []).append(scores.get(metric, math.nan))
    means = {case: float(np.mean(scores)) for case, scores in values.items()}
    return {case: mean for case, mean in means.items() if not math.isnan(mean)}


def paired_differences(evaluation: Evaluation, metric: str, fraction: float) -> bytes:
    """For each start but the first: its value less the first's, a dot for each case, in the order of size.

    Blue is better than the first start, vermilion worse; the line is the mean.

    Raises:
        ValueError: If there is one start only.
    """
    first, *others = _two_starts(evaluation)
    figure, panels = _panels(len(others), 2.9)
    reference = by_case(evaluation.of(first, fraction), metric)
    for panel, start in zip(panels, others, strict=True):
        mine = by_case(evaluation.of(start, fraction), metric)
        differences = sorted(mine[case] - reference[case] for case in mine.keys() & reference.keys())
        _title(panel, start, len(differences))
        panel.axhline(0, color="black", linewidth=0.9)
        panel.set_ylabel(f"{metric}, less {first}'s")
        panel.set_xticks([])
        panel.set_xlabel("cases, sorted")
        if differences:
            colours = [BLUE if value > 0 else VERMILION if value < 0 else GREY for value in differences]
            panel.scatter(range(len(differences)), differences, c=colours, s=9 if len(differences) > _MANY else 22)
            mean = float(np.mean(differences))
            panel.axhline(mean, color=GREY, linestyle="--", linewidth=1.3)
            panel.text(  # in the corner that sorted points leave free
                0.98, 0.05, f"mean {mean:+.3f}", transform=panel.transAxes, ha="right", fontsize=9, color="#4d4d4d"
            )
            reach = 1.15 * max(abs(differences[0]), abs(differences[-1]), 1e-6)
            panel.set_ylim(-reach, reach)
    _level(panels)
    return png(figure)


def case_scatter(evaluation: Evaluation, metric: str, fraction: float) -> bytes:
    """For each start but the first: its value of a case against the first's; above the diagonal it is larger.

    Raises:
        ValueError: If there is one start only.
    """
    first, *others = _two_starts(evaluation)
    figure, panels = _panels(len(others), 3.3)
    reference = by_case(evaluation.of(first, fraction), metric)
    shown: list[float] = []
    for number, (panel, start) in enumerate(zip(panels, others, strict=True), start=1):
        mine = by_case(evaluation.of(start, fraction), metric)
        cases = sorted(mine.keys() & reference.keys())
        _title(panel, start, len(cases))
        shown += [values[case] for values in (mine, reference) for case in cases]
        panel.scatter(
            [reference[case] for case in cases],
            [mine[case] for case in cases],
            s=9 if len(cases) > _MANY else 24,
            color=SERIES[number % len(SERIES)],
            marker=MARKERS[number % len(MARKERS)],
            alpha=0.75,
            linewidths=0,
        )
        panel.set_xlabel(f"{metric} of {first}")
        panel.set_ylabel(f"{metric} of {start}")
    low, high = (min(shown), max(shown)) if shown else (0.0, 1.0)
    edge = 0.06 * (high - low) or 0.05
    for panel in panels:
        panel.plot([low - edge, high + edge], [low - edge, high + edge], color=GREY, linewidth=0.9, zorder=0)
        panel.set_xlim(low - edge, high + edge)
        panel.set_ylim(low - edge, high + edge)
        panel.set_aspect("equal")
    return png(figure)


def training_losses(evaluation: Evaluation, fraction: float) -> bytes:
    """Loss of each epoch: a thick line for the mean over the seeds of a start, a thin one for each seed.

    The axis is logarithmic where every loss is positive and the largest a hundred times the smallest.

    Raises:
        ValueError: If no run of the fraction has losses.
    """
    from matplotlib.ticker import MaxNLocator

    by_start = {start: [r.losses for r in evaluation.of(start, fraction) if r.losses] for start in evaluation.starts}
    every = [loss for losses in by_start.values() for run in losses for loss in run]
    if not every:
        raise ValueError(
            f"{evaluation.name} has no losses at {fraction:g} of the labels; draw those of another fraction"
        )
    figure, panels = grid(1, 1, 3.3)
    panel = panels[0][0]
    for number, (start, losses) in enumerate(by_start.items()):
        colour = SERIES[number % len(SERIES)]
        for one in losses if len(losses) > 1 else []:
            panel.plot(range(1, len(one) + 1), one, color=colour, linewidth=0.7, alpha=0.4)
        if losses:
            epochs = min(len(one) for one in losses)
            mean = np.mean([one[:epochs] for one in losses], axis=0)
            marker = MARKERS[number % len(MARKERS)] if epochs < _MANY else ""
            panel.plot(
                range(1, epochs + 1), mean, color=colour, linewidth=1.9, marker=marker, markersize=3.5, label=start
            )
    panel.set_xlabel("epoch")
    panel.set_ylabel("training loss")
    if min(every) > 0 and max(every) > 100 * min(every):
        panel.set_yscale("log")
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    panel.grid(axis="y", color="#e3e3e3", linewidth=0.8)
    panel.legend(loc="upper right", fontsize=9, frameon=False)
    return png(figure)


def _two_starts(evaluation: Evaluation) -> Sequence[str]:
    if len(evaluation.starts) == 1:
        raise ValueError(
            f"{evaluation.name} has one start, {evaluation.starts[0]}; there is nothing to compare it with"
        )
    return evaluation.starts


def _panels(count: int, height: float) -> tuple[Figure, list[Axes]]:
    columns = min(_COLUMNS, count)
    rows = math.ceil(count / columns)
    figure, found = grid(rows, columns, height * rows, gap=0.06)
    panels = [panel for row in found for panel in row]
    for panel in panels[count:]:
        panel.set_axis_off()
    return figure, panels[:count]


def _title(panel: Axes, start: str, cases: int) -> None:
    panel.set_title(f"{start} ({cases} case{'' if cases == 1 else 's'})", loc="left", fontsize=11, fontweight="bold")
    panel.grid(axis="y", color="#e3e3e3", linewidth=0.8)
    panel.set_axisbelow(True)


def _level(panels: Sequence[Axes]) -> None:
    """One scale for all, so that panels can be compared."""
    reach = max(panel.get_ylim()[1] for panel in panels)
    for panel in panels:
        panel.set_ylim(-reach, reach)
