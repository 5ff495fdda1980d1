"""Predictions on the pictures themselves, starts side by side (as in the paper's Figures 4, 5 and 8), as PNG bytes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vissl_jointssl.manifest import Box
from vissl_jointssl.report.canvas import PAGE_WIDTH, SKY, VERMILION, blank, grid, png
from vissl_jointssl.report.predictions import ScoredBox

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TRUTH, PREDICTION = "#00C48C", "#FF3B30"  # as in the paper, green and red; bright, for they lie on grey
LEAST_SCORE = 0.3
_LEAST_SIDE = 1 / 3  # of the picture that is shown around what was found
_MARGIN = 0.25
_TINT = 0.4
_FEW = 12  # boxes


@dataclass(frozen=True)
class MaskCase:
    """A row of the figure of segmentations.

    Attributes:
        title: Such as "worst: case07".
        picture: Grey values `(H, W)` in [0, 1].
        truth: Boolean `(n, H, W)`.
        predicted: By start: boolean `(n, H, W)`, or None where there is no prediction.
        scores: By start: what is written below.
        height_by_width: Of a pixel.
    """

    title: str
    picture: np.ndarray
    truth: np.ndarray
    predicted: Mapping[str, np.ndarray | None]
    scores: Mapping[str, str]
    height_by_width: float = 1.0


@dataclass(frozen=True)
class BoxCase:
    """A row of the figure of boxes, see `MaskCase`; `names` are those of the classes, where they are known."""

    title: str
    picture: np.ndarray
    truth: Sequence[Box]
    predicted: Mapping[str, Sequence[ScoredBox] | None]
    scores: Mapping[str, str]
    names: Sequence[str] = ()


def mask_overlays(cases: Sequence[MaskCase]) -> bytes:
    """A row for each case, a column for each start, around what is true or predicted.

    Green outline: true; red outline: predicted. Red tint: predicted and not true; blue tint: true and not predicted.
    """
    crops = [_crop(case) for case in cases]
    ratios = [(rows.stop - rows.start) / (cols.stop - cols.start) * case.height_by_width
              for case, (rows, cols) in zip(cases, crops, strict=True)]  # fmt: skip

    def draw(panel: Axes, number: int, start: str) -> bool:
        case, (rows, cols) = cases[number], crops[number]
        _show(panel, case.picture[rows, cols], case.height_by_width)
        truth, predicted = case.truth[:, rows, cols], case.predicted[start]
        if predicted is not None:
            predicted = predicted[:, rows, cols]
            _tint(panel, (predicted & ~truth).any(axis=0), VERMILION, case.height_by_width)
            _tint(panel, (truth & ~predicted).any(axis=0), SKY, case.height_by_width)
        _outline(panel, truth, TRUTH)
        if predicted is not None:
            _outline(panel, predicted, PREDICTION)
        return predicted is not None

    return _figure(cases, ratios, draw)


def box_overlays(cases: Sequence[BoxCase]) -> bytes:
    """A row for each case, a column for each start: true boxes green, predicted ones red with class and score.

    Predictions that score less than `LEAST_SCORE` are not drawn.
    """
    ratios = [case.picture.shape[0] / case.picture.shape[1] for case in cases]

    def draw(panel: Axes, number: int, start: str) -> bool:
        case = cases[number]
        _show(panel, case.picture, 1.0)
        for box in case.truth:
            _rectangle(panel, box, TRUTH)
        predicted = case.predicted[start]
        shown = [box for box in predicted or () if box.score >= LEAST_SCORE]
        few = len(shown) <= _FEW  # more are a wall of numbers
        for box in shown:
            _rectangle(panel, box, PREDICTION)
            if few:
                name = case.names[box.label] if box.label < len(case.names) else str(box.label)
                panel.annotate(
                    f"{name}: {box.score:.2f}",
                    (box.left, box.top),
                    textcoords="offset points",
                    xytext=(1, 1.5),
                    fontsize=6.5,
                    color="white",
                    bbox={"facecolor": PREDICTION, "edgecolor": "none", "pad": 0.8, "alpha": 0.85},
                    annotation_clip=True,
                )
        return predicted is not None

    return _figure(cases, ratios, draw)


def _figure(
    cases: Sequence[MaskCase] | Sequence[BoxCase], ratios: Sequence[float], draw: Callable[[Axes, int, str], bool]
) -> bytes:
    starts = list(cases[0].scores)
    by_case = len(starts) > 2  # else starts are the rows: two columns would leave half of the page empty
    rows, columns = (len(cases), len(starts)) if by_case else (len(starts), len(cases))
    heights = ratios if by_case else [max(ratios)] * rows
    cell = (PAGE_WIDTH - 0.4) / max(3, columns)
    figure, panels = grid(rows, max(3, columns), sum(heights) * cell + 0.28 * rows + 0.3)
    for row, column in itertools.product(range(rows), range(max(3, columns))):
        panel = panels[row][column]
        if column >= columns:
            panel.set_axis_off()
            continue
        number, start = (row, starts[column]) if by_case else (column, starts[row])
        case = cases[number]
        there = draw(panel, number, start)
        blank(panel)
        panel.set_xlabel(case.scores[start] if there else "no prediction", fontsize=9, labelpad=2)
        if row == 0:
            panel.set_title(start if by_case else case.title, fontsize=10, fontweight="bold")
        if column == 0:
            panel.set_ylabel(case.title if by_case else start, fontsize=9)
    return png(figure)


def _crop(case: MaskCase) -> tuple[slice, slice]:
    """Rows and columns around every mask, with a margin, and a third of the picture at least."""
    every = [case.truth, *(masks for masks in case.predicted.values() if masks is not None)]
    found = np.asarray(np.concatenate(every).any(axis=0))
    if not found.any():
        return slice(0, found.shape[0]), slice(0, found.shape[1])
    sides = []
    for length, seen in zip(found.shape, (found.any(axis=1), found.any(axis=0)), strict=True):
        places = np.flatnonzero(seen)
        low, high = int(places[0]), int(places[-1]) + 1
        side = min(length, max(math.ceil((high - low) * (1 + 2 * _MARGIN)), math.ceil(length * _LEAST_SIDE)))
        first = min(max(0, (low + high - side) // 2), length - side)
        sides.append(slice(first, first + side))
    return sides[0], sides[1]


def _show(panel: Axes, picture: np.ndarray, height_by_width: float) -> None:
    panel.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest", aspect=height_by_width)


def _tint(panel: Axes, mask: np.ndarray, colour: str, height_by_width: float) -> None:
    from matplotlib.colors import to_rgba

    layer = np.zeros((*mask.shape, 4))
    layer[mask] = to_rgba(colour, _TINT)
    panel.imshow(layer, interpolation="nearest", aspect=height_by_width)


def _outline(panel: Axes, masks: np.ndarray, colour: str) -> None:
    """Along the edges of the pixels; a border of nothing closes outlines at the edge of the picture."""
    for mask in masks:
        if mask.any():
            padded = np.pad(mask, 1).astype(float)
            rows, cols = np.arange(padded.shape[0]) - 1, np.arange(padded.shape[1]) - 1
            panel.contour(cols, rows, padded, levels=[0.5], colors=[colour], linewidths=1.1)


def _rectangle(panel: Axes, box: Box, colour: str) -> None:
    from matplotlib.patches import Rectangle

    # Pixel centres are whole numbers, so that the left edge of the first pixel is at -0.5.
    corner = (box.left - 0.5, box.top - 0.5)
    size = (box.right - box.left, box.bottom - box.top)
    panel.add_patch(Rectangle(corner, *size, fill=False, edgecolor=colour, linewidth=1.2))
