"""The collapse figure, by what is drawn in it."""

from __future__ import annotations

import io
import math
from dataclasses import replace
from pathlib import Path

import matplotlib.image
import matplotlib.text
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vissl_jointssl.report import collapse_figure
from vissl_jointssl.report.canvas import png
from vissl_jointssl.report.collapse_figure import collapse_curves
from vissl_jointssl.report.measures import Measures, Series

LIMITS = {
    "mean_cosine": 0.95,
    "effective_rank": 2.0,
    "usage_entropy": 0.3,
    "marginal_error": 0.5,
    "agreement_above_chance": 0.1,
    "recognition": 0.55,
}
VALUES = {
    "mean_cosine": (0.9, 0.3),
    "effective_rank": (5.0, 60.0),
    "usage_entropy": (1.0, 1.9),
    "usage_bound": (1.5, math.log(8)),
    "prototypes": (8, 8),
    "marginal_error": (0.1, 0.2),
    "agreement": (0.2, 0.7),
    "agreement_by_chance": (0.15, 0.2),
    "recognition": (0.52, 0.8),
}


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Every figure drawn in the test."""
    caught: list[Figure] = []

    def keep(figure: Figure) -> bytes:
        caught.append(figure)
        return png(figure)

    monkeypatch.setattr(collapse_figure, "png", keep)
    return caught


def _measures(**changed: tuple[float, ...]) -> Measures:
    series = {name: Series((0, 10), values) for name, values in (VALUES | changed).items()}
    return Measures(Path("collapse.jsonl"), series, LIMITS)


def _panel(figure: Figure, title: str) -> Axes:
    (panel,) = (panel for panel in figure.axes if panel.get_title(loc="left") == title)
    return panel


def _texts(panel: Axes) -> list[str]:
    return [text.get_text() for text in panel.findobj(matplotlib.text.Text) if text.get_text()]


@pytest.mark.parametrize(
    ("title", "name", "limit"),
    [
        ("Mean cosine between volumes", "mean_cosine", 0.95),
        ("Effective rank", "effective_rank", 2),
        ("Entropy of prototype usage", "usage_entropy", 0.3 * math.log(8)),
        ("Codes at the wrong prototypes", "marginal_error", 0.5),
        ("Agreement of the two views", "agreement", 0.2 + 0.1 * 0.8),
        ("Volumes told apart", "recognition", 0.55),
    ],
)
def test_each_measure_is_drawn_with_its_limit(drawn: list[Figure], title: str, name: str, limit: float) -> None:
    data = collapse_curves(_measures())
    panel = _panel(drawn[0], title)
    assert list(panel.lines[0].get_ydata()) == list(VALUES[name])
    assert list(panel.lines[0].get_xdata()) == [0, 10]
    assert [line.get_ydata()[0] for line in panel.lines if line.get_linestyle() == "--"] == [pytest.approx(limit)]
    assert f"limit {limit:.3g}" in _texts(panel)
    low, high = panel.get_ylim()
    assert low < min(*VALUES[name], limit) <= max(*VALUES[name], limit) < high
    assert matplotlib.image.imread(io.BytesIO(data), format="png").shape[1] == 1500


def test_what_a_measure_compares_with_is_named(drawn: list[Figure]) -> None:
    collapse_curves(_measures())
    usage, agreement = _panel(drawn[0], "Entropy of prototype usage"), _panel(drawn[0], "Agreement of the two views")
    assert "largest possible, K = 8" in _texts(usage)
    assert list(usage.lines[1].get_ydata()) == list(VALUES["usage_bound"])
    assert "chance" in _texts(agreement)
    assert list(agreement.lines[1].get_ydata()) == list(VALUES["agreement_by_chance"])


def test_the_side_where_collapse_lies_is_shaded(drawn: list[Figure]) -> None:
    collapse_curves(_measures())
    for title, above in (("Mean cosine between volumes", True), ("Effective rank", False)):
        panel = _panel(drawn[0], title)
        (shade,) = panel.patches
        box = shade.get_bbox()
        limit = 0.95 if above else 2.0
        assert (box.y0, box.y1)[0 if above else 1] == pytest.approx(limit)


def test_a_measure_that_was_not_taken_says_so(drawn: list[Figure]) -> None:
    collapse_curves(_measures(marginal_error=(math.nan, math.nan)))
    panel = _panel(drawn[0], "Codes at the wrong prototypes")
    assert "not measured" in _texts(panel)
    assert len(panel.lines) == 0


def test_a_run_of_before_recognition_was_measured_is_drawn(drawn: list[Figure]) -> None:
    measures = _measures()
    collapse_curves(replace(measures, series={k: v for k, v in measures.series.items() if k != "recognition"}))
    panel = _panel(drawn[0], "Volumes told apart")
    assert "not measured" in _texts(panel)
    assert len(panel.lines) == 0


def test_another_files_measures_are_refused() -> None:
    other = Measures(Path("masked_baselines.jsonl"), {"neighbours": Series((0,), (1.0,))})
    with pytest.raises(ValueError, match=r"masked_baselines\.jsonl has no measure 'effective_rank', only \['neighb"):
        collapse_curves(other)
