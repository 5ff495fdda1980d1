"""The losses of a run's stages over their iterations, as PNG bytes; matplotlib is imported when it is drawn."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vissl_jointssl.report.canvas import BLUE, VERMILION, grid, png
from vissl_jointssl.report.curves import LossCurve
from vissl_jointssl.report.measures import Series

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_DASHES = ("--", ":", "-.")


@dataclass(frozen=True)
class StageCurve:
    """One panel of the loss figure.

    Attributes:
        title: Such as "Stage 3: volumes".
        curve: Its losses.
        prototypes: K of a clustering loss, whose ln K line is drawn; None for other losses.
        loss: What the loss is, for the axis.
        beside: What the loss is to be compared with at the same iterations, by name; makes the axis logarithmic.
    """

    title: str
    curve: LossCurve
    prototypes: int | None = None
    loss: str = "loss"
    beside: Mapping[str, Series] = field(default_factory=dict)


def loss_curves(stages: Sequence[StageCurve]) -> bytes:
    """One panel per stage: loss over iterations, with the line at ln K for clustering losses.

    ln K is the cross-entropy of a model that finds all K prototypes equally likely, whatever it sees.
    """
    figure, panels = grid(1, len(stages), 3.3, gap=0.06)
    for panel, stage in zip(panels[0], stages, strict=True):
        points = stage.curve.points
        iterations, losses = [point.iteration for point in points], [point.loss for point in points]
        marker = "o" if len(points) < 40 else ""
        panel.plot(iterations, losses, color=BLUE, linewidth=1.8, marker=marker, markersize=3.5)
        if stage.prototypes is not None:
            _uniform_line(panel, stage.prototypes)
        if stage.beside:
            _compare(panel, stage.beside)
        panel.set_title(stage.title, loc="left", fontsize=11, fontweight="bold")
        panel.set_xlabel("iteration")
        panel.set_ylabel(stage.loss)
        panel.grid(axis="y", color="#e3e3e3", linewidth=0.8)
        panel.margins(y=0.18)
        panel.annotate(
            f"{losses[-1]:.3g}",
            (iterations[-1], losses[-1]),
            textcoords="offset points",
            xytext=(0, -13),
            ha="right",
            fontsize=9,
            color=BLUE,
        )
    return png(figure)


def _uniform_line(panel: Axes, prototypes: int) -> None:
    level = math.log(prototypes)
    panel.axhline(level, color=VERMILION, linestyle="--", linewidth=1.4)
    panel.annotate(
        f"ln K = ln {prototypes} = {level:.2f}",
        (1, level),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        xytext=(-2, 4),
        ha="right",
        fontsize=9,
        color=VERMILION,
    )


def _compare(panel: Axes, beside: Mapping[str, Series]) -> None:
    """Other curves in their own dashes, named in a legend; a loss begins ten times above and more."""
    panel.set_yscale("log")
    for (name, series), dashes in zip(beside.items(), _DASHES, strict=False):
        panel.plot(series.iterations, series.values, color=VERMILION, linestyle=dashes, linewidth=1.4, label=name)
    panel.legend(loc="upper right", fontsize=9, frameon=False)
