"""What every figure is drawn on. Colours are Okabe and Ito's, which stay apart under common colour blindness."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, VERMILION = "#0072B2", "#D55E00"
GREEN, ORANGE, PURPLE, SKY, GREY = "#009E73", "#E69F00", "#CC79A7", "#56B4E9", "#767676"
SERIES = (GREY, BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY)  # the first start is what the others are compared with
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
PAGE_WIDTH = 10.0  # inches; with DOTS_PER_INCH about twice the width of the page's column, for sharp screens
DOTS_PER_INCH = 150


def grid(rows: int, columns: int, height: float, gap: float = 0.02) -> tuple[Figure, list[list[Axes]]]:
    """A figure of the page's width with its panels by row and column; height in inches, gap as a share of a panel."""
    # Figure() and not pyplot: no global state, no display, nothing to close.
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    tight = ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.03, wspace=gap, hspace=0.02)
    figure = Figure(figsize=(PAGE_WIDTH, height), dpi=DOTS_PER_INCH, layout=tight, facecolor="white")
    panels = figure.subplots(rows, columns, squeeze=False)
    for panel in panels.flat:
        panel.spines[["top", "right"]].set_visible(False)
    return figure, panels.tolist()


def blank(panel: Axes) -> None:
    """Take ticks and frame away from a panel that holds a picture."""
    panel.set_xticks([])
    panel.set_yticks([])
    panel.spines[:].set_visible(False)


def show(panel: Axes, image: Tensor) -> None:
    """Draw a slice ``(H, W)`` in [0, 1]; every picture has the same grey scale."""
    pixels = image.detach().to("cpu", torch.float32).nan_to_num(0.0).numpy()
    panel.imshow(pixels, cmap="gray", vmin=0, vmax=1, interpolation="nearest")


def png(figure: Figure) -> bytes:
    """The figure as a PNG file's bytes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    stream = io.BytesIO()
    FigureCanvasAgg(figure).print_png(stream)
    return stream.getvalue()
