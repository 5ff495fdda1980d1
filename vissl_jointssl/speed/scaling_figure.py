"""The figure of `jointssl speed scaling`: seconds on log axes, beside lines of linear growth."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vissl_jointssl.speed.scaling import AXES, DATA_SET


def draw_scaling(measured: Mapping[str, Any], out: Path) -> None:
    """Write the figure; its kind is the file's suffix.

    Args:
        measured: What `scaling.measure` gave.
        out: `.svg`, `.png` or `.pdf`.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator

    figure = Figure(figsize=(10, 3.2), layout="constrained")
    for axes, (axis, words) in zip(figure.subplots(1, len(AXES)), AXES.items(), strict=True):
        places = [int(place) for place in measured[axis]["seconds"]]
        seconds = list(measured[axis]["seconds"].values())
        linear = [seconds[-1] * place / places[-1] for place in places]
        axes.loglog(places, linear, color="0.7", linestyle="--", label="linear")
        axes.loglog(places, seconds, marker="o", label=f"measured, slope {measured[axis]['slope']:.2f}")
        axes.set_xticks(places, [str(place) for place in places])
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.minorticks_off()
        axes.set_xlabel(words)
        axes.set_ylabel("seconds an epoch" if axis == DATA_SET else "seconds a step")
        axes.legend(frameon=False, fontsize=8)
    figure.savefig(out, dpi=120)
