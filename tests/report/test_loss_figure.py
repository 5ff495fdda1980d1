"""The loss figure, by what is drawn in it."""

from __future__ import annotations

import math
from pathlib import Path

import matplotlib.text
import numpy as np
import pytest
from matplotlib.figure import Figure

from vissl_jointssl.report import loss_figure
from vissl_jointssl.report.canvas import png
from vissl_jointssl.report.curves import LossCurve, LossPoint
from vissl_jointssl.report.loss_figure import StageCurve, loss_curves
from vissl_jointssl.report.measures import Series


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Every figure drawn in the test."""
    caught: list[Figure] = []

    def keep(figure: Figure) -> bytes:
        caught.append(figure)
        return png(figure)

    monkeypatch.setattr(loss_figure, "png", keep)
    return caught


def _texts(figure: Figure) -> str:
    return "\n".join(
        text.get_text() for panel in figure.axes for text in panel.findobj(matplotlib.text.Text) if text.get_text()
    )


def _curve(*losses: float) -> LossCurve:
    points = tuple(LossPoint(0, number, loss, 0.1, 1.0) for number, loss in enumerate(losses, start=1))
    return LossCurve(Path("stdout.json"), points)


def test_a_clustering_loss_gets_a_line_at_ln_k_and_another_loss_does_not(drawn: list[Figure]) -> None:
    loss_curves([StageCurve("Stage 2", _curve(2, 1)), StageCurve("Stage 3", _curve(8.2, 7.5), prototypes=3000)])

    plain, clustered = drawn[0].axes
    assert plain.get_title(loc="left") == "Stage 2"
    assert [line.get_ydata()[0] for line in clustered.lines[1:]] == [pytest.approx(math.log(3000))]
    assert len(plain.lines) == 1
    assert "ln K = ln 3000 = 8.01" in _texts(drawn[0])
    low, high = clustered.get_ylim()
    assert low < 7.5
    assert math.log(3000) < high


def test_the_curve_holds_every_logged_loss(drawn: list[Figure]) -> None:
    loss_curves([StageCurve("Stage 1", _curve(5, 4, math.nan, 3))])
    x, y = drawn[0].axes[0].lines[0].get_data()
    assert list(x) == [1, 2, 3, 4]
    np.testing.assert_array_equal(y, [5, 4, math.nan, 3])


def test_what_a_loss_is_compared_with_stands_beside_it_with_its_name(drawn: list[Figure]) -> None:
    beside = {"mean embedding": Series((1, 2), (0.9, 0.8)), "neighbours": Series((1, 2), (0.2, 0.3))}
    loss_curves([StageCurve("Stage 2", _curve(37, 1), beside=beside), StageCurve("Stage 3", _curve(8, 7))])
    compared, alone = drawn[0].axes
    assert [list(line.get_ydata()) for line in compared.lines] == [[37, 1], [0.9, 0.8], [0.2, 0.3]]
    assert len({line.get_linestyle() for line in compared.lines}) == 3
    assert [text.get_text() for text in compared.get_legend().get_texts()] == ["mean embedding", "neighbours"]
    assert compared.get_yscale() == "log"  # 37 and 0.2 on one axis
    assert alone.get_yscale() == "linear"
    assert alone.get_legend() is None
