"""The figures of a report that show slices and scores, as PNG bytes; curves: `loss_figure` and `collapse_figure`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from vissl_jointssl.report.canvas import BLUE, PAGE_WIDTH, VERMILION, blank, grid, png, show
from vissl_jointssl.report.neighbours import nearest


@dataclass(frozen=True)
class Score:
    """One bar: a method's score between 0 and 1, and how far single runs lie from it where there were several."""

    name: str
    value: float
    spread: float = 0.0


def view_grid(volumes: Mapping[str, Tensor], slices: int = 6) -> bytes:
    """The views of some volumes: per volume one row of slices for each view, the first view on top.

    Args:
        volumes: Name -> views ``(V, F, 1, H, W)`` in [0, 1]; a slice that is NaN does not exist and is left out.
        slices: Slices shown of each view, evenly spaced over those that exist.

    Raises:
        ValueError: If a tensor has another shape.
    """
    for name, views in volumes.items():
        if views.ndim != 5 or views.shape[2] != 1:
            raise ValueError(f"views of {name!r} are {tuple(views.shape)}; expected (V, F, 1, H, W) with one channel")
    rows = sum(len(views) for views in volumes.values())
    cell = (PAGE_WIDTH - 1.0) / slices
    heights = [views.shape[-2] / views.shape[-1] for views in volumes.values() for _ in range(len(views))]
    figure, panels = grid(rows, slices, sum(heights) * cell + 0.34 * len(volumes) + 0.1)
    row = 0
    for name, views in volumes.items():
        for number, view in enumerate(views, start=1):
            existing = [place for place in range(len(view)) if not view[place].isnan().all()]
            for column, panel in enumerate(panels[row]):
                blank(panel)
                if not existing:
                    continue
                place = existing[round(column * (len(existing) - 1) / max(1, slices - 1))]
                show(panel, view[place, 0])
                panel.text(0.03, 0.03, str(place), transform=panel.transAxes, color="white", fontsize=7, alpha=0.85)
            absent = len(view) - len(existing)
            panels[row][0].set_ylabel(f"view {number}" + (f"\n({absent} padding)" if absent else ""), fontsize=9)
            if number == 1:
                title = f"{name}  ({len(view)} slices)"
                panels[row][0].set_title(title, loc="left", fontsize=10, fontweight="bold")
            row += 1
    return png(figure)


def neighbour_grid(
    embeddings: Tensor,
    images: Tensor,
    volumes: Sequence[str],
    queries: Sequence[int],
    *,
    k: int = 5,
    other_volumes_only: bool = True,
) -> bytes:
    """Nearest slices: one row per query, the query on the left, then its ``k`` neighbours with cosine and volume.

    Args:
        embeddings: Slice embeddings ``(N, D)``.
        images: The slices ``(N, H, W)`` in [0, 1].
        volumes: Name of the volume of each slice, N of them.
        queries: Row numbers to look up.
        k: Neighbours per query.
        other_volumes_only: Leave out slices of the query's own volume, which are near without any learning.

    Raises:
        ValueError: If the lengths differ, or see ``nearest``.
    """
    if not len(embeddings) == len(images) == len(volumes):
        raise ValueError(
            f"{len(embeddings)} embeddings, {len(images)} images and {len(volumes)} volume names; "
            "give one of each for every slice"
        )
    rows, cosines = nearest(embeddings, queries, k, groups=volumes if other_volumes_only else None)
    cell = (PAGE_WIDTH - 0.3) / (k + 1)
    height = cell * images.shape[1] / images.shape[2] + 0.42
    figure, panels = grid(len(queries), k + 1, height * len(queries))
    for panel_row, query, found, cosine in zip(panels, queries, rows.tolist(), cosines.tolist(), strict=True):
        for column, (panel, place) in enumerate(zip(panel_row, [query, *found], strict=True)):
            blank(panel)
            show(panel, images[place])
            score = "query" if column == 0 else f"cosine {cosine[column - 1]:.3f}"
            panel.set_xlabel(
                f"{score}\n{_short(volumes[place])}", fontsize=8, color=VERMILION if column == 0 else "black"
            )
            if column == 0:
                for edge in panel.spines.values():
                    edge.set_visible(True)
                    edge.set_color(VERMILION)
                    edge.set_linewidth(2.5)
    return png(figure)


def score_bars(scores: Sequence[Score], chance: float, *, metric: str = "accuracy") -> bytes:
    """Horizontal bars of scores between 0 and 1, with the level of chance as a labelled line.

    Args:
        scores: One bar each, top to bottom.
        chance: Score of always answering the most frequent class.
        metric: Name of the score, for the axis.
    """
    figure, ((panel,),) = grid(1, 1, 0.9 + 0.5 * len(scores))
    places = list(range(len(scores)))[::-1]
    panel.barh(places, [score.value for score in scores], height=0.6, color=BLUE)
    for place, score in zip(places, scores, strict=True):
        if score.spread:
            panel.errorbar(score.value, place, xerr=score.spread, color="black", capsize=3, linewidth=1.2)
        spread = f" ± {100 * score.spread:.1f}" if score.spread else ""
        panel.text(
            score.value + score.spread + 0.01, place, f"{100 * score.value:.1f} %{spread}", va="center", fontsize=9
        )
    panel.axvline(chance, color=VERMILION, linestyle="--", linewidth=1.6)
    panel.text(chance + 0.008, len(scores) - 0.42, f"chance {100 * chance:.1f} %", color=VERMILION, fontsize=9)
    panel.set_yticks(places, [score.name for score in scores], fontsize=9)
    panel.set_xlim(0, 1.12)
    panel.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "25", "50", "75", "100 %"])
    panel.set_ylim(-0.6, len(scores) - 0.1)
    panel.set_xlabel(metric)
    panel.tick_params(left=False)
    return png(figure)


def _short(name: str, width: int = 22) -> str:
    """A name cut in its middle: volume names differ at their ends."""
    half = (width - 1) // 2
    return name if len(name) <= width else f"{name[:half]}…{name[-half:]}"
