"""The measures of collapse over stage 3 with their limits, as PNG bytes; matplotlib is imported when it is drawn."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from vissl_jointssl.report.canvas import BLUE, VERMILION, grid, png
from vissl_jointssl.report.measures import Measures, Series

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_GREY = "#767676"


def collapse_curves(measures: Measures) -> bytes:
    """Six panels: a blue curve is what was measured, a vermilion dashed line the limit it should not cross.

    The side of the limit where collapse lies is shaded. Grey is what the measure compares with: the largest entropy
    that so many volumes can have, and chance.

    Args:
        measures: Of stage 3, as `read_measures` gives them.

    Raises:
        ValueError: If they are another file's.
    """
    series, limits = measures.series, measures.limits
    absent = [name for name in ("effective_rank", "mean_cosine", "usage_entropy") if name not in series]
    if absent:
        raise ValueError(f"{measures.path} has no measure {absent[0]!r}, only {list(series)}; give collapse.jsonl")
    figure, rows = grid(2, 3, 5.6, gap=0.06)
    panels = [panel for row in rows for panel in row]

    _curve(panels[0], "Mean cosine between volumes", series["mean_cosine"])
    _limit(panels[0], limits.get("mean_cosine"), above=True)

    _curve(panels[1], "Effective rank", series["effective_rank"])
    _limit(panels[1], limits.get("effective_rank"), above=False)

    _curve(panels[2], "Entropy of prototype usage", series["usage_entropy"])
    bound = series["usage_bound"]
    prototypes = int(series["prototypes"].values[-1])
    panels[2].plot(bound.iterations, bound.values, color=_GREY, linewidth=1.2)
    _say(panels[2], f"largest possible, K = {prototypes}", bound.values[-1], _GREY)
    if "usage_entropy" in limits:  # a share of what so many volumes can reach
        _limit(panels[2], limits["usage_entropy"] * bound.values[-1], above=False)

    _curve(panels[3], "Codes at the wrong prototypes", series["marginal_error"])
    _limit(panels[3], limits.get("marginal_error"), above=True)

    _curve(panels[4], "Agreement of the two views", series["agreement"])
    chance = series["agreement_by_chance"]
    panels[4].plot(chance.iterations, chance.values, color=_GREY, linewidth=1.2)
    if not math.isnan(chance.values[-1]):
        _say(panels[4], "chance", chance.values[-1], _GREY, below=True)
        if "agreement_above_chance" in limits:  # a share of the way from chance to always
            level = chance.values[-1] + limits["agreement_above_chance"] * (1 - chance.values[-1])
            _limit(panels[4], level, above=False)

    recognition = series.get("recognition", Series((), ()))  # older runs have none
    _curve(panels[5], "Volumes told apart", recognition)
    if panels[5].lines:
        panels[5].axhline(0.5, color=_GREY, linewidth=1.2)
        _say(panels[5], "chance", 0.5, _GREY, below=True)
        _limit(panels[5], limits.get("recognition"), above=False)
    return png(figure)


def _curve(panel: Axes, title: str, series: Series) -> None:
    panel.set_title(title, loc="left", fontsize=11, fontweight="bold")
    panel.set_xlabel("iteration")
    panel.grid(axis="y", color="#e3e3e3", linewidth=0.8)
    if all(math.isnan(value) for value in series.values):
        panel.text(0.5, 0.5, "not measured", transform=panel.transAxes, ha="center", color=_GREY)
        return
    marker = "o" if len(series.values) < 40 else ""
    panel.plot(series.iterations, series.values, color=BLUE, linewidth=1.8, marker=marker, markersize=3.5)
    panel.margins(y=0.18)


def _limit(panel: Axes, level: float | None, *, above: bool) -> None:
    """The limit, and the side of it where collapse lies, `above` or below."""
    if level is None or not panel.lines:
        return
    panel.axhline(level, color=VERMILION, linestyle="--", linewidth=1.4)
    _say(panel, f"limit {level:.3g}", level, VERMILION)
    low, high = panel.get_ylim()
    low, high = min(low, level - 0.12 * (high - low)), max(high, level + 0.12 * (high - low))
    panel.axhspan(*((level, high) if above else (low, level)), color=VERMILION, alpha=0.08, linewidth=0)
    panel.set_ylim(low, high)


def _say(panel: Axes, text: str, level: float, color: str, *, below: bool = False) -> None:
    panel.annotate(
        text,
        (1, level),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        xytext=(-2, -3 if below else 3),
        ha="right",
        va="top" if below else "bottom",
        fontsize=9,
        color=color,
    )
