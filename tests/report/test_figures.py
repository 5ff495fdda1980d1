"""Figures are judged by what is in them: the drawn texts and pixels, taken from the figure just before it is a PNG."""

from __future__ import annotations

import io

import matplotlib.image
import matplotlib.text
import pytest
import torch
from matplotlib.figure import Figure

from vissl_jointssl.report import figures
from vissl_jointssl.report.canvas import png
from vissl_jointssl.report.figures import Score, neighbour_grid, score_bars, view_grid


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Every figure drawn in the test."""
    caught: list[Figure] = []

    def keep(figure: Figure) -> bytes:
        caught.append(figure)
        return png(figure)

    monkeypatch.setattr(figures, "png", keep)
    return caught


def _texts(figure: Figure) -> str:
    return "\n".join(
        text.get_text() for panel in figure.axes for text in panel.findobj(matplotlib.text.Text) if text.get_text()
    )


def test_views_show_existing_slices_only_and_count_the_padding(drawn: list[Figure]) -> None:
    views = torch.arange(8.0).reshape(1, 8, 1, 1, 1).expand(2, 8, 1, 4, 4) / 10
    views = views.clone()
    views[1, 5:] = float("nan")

    view_grid({"heart": views}, slices=3)

    shown = [round(10 * float(panel.images[0].get_array().max())) for panel in drawn[0].axes]
    assert shown == [0, 4, 7, 0, 2, 4]
    texts = _texts(drawn[0])
    assert "heart  (8 slices)" in texts
    assert "view 2\n(3 padding)" in texts


def test_a_view_without_any_slice_stays_blank(drawn: list[Figure]) -> None:
    view_grid({"empty": torch.full((1, 3, 1, 2, 2), float("nan"))}, slices=2)
    assert [len(panel.images) for panel in drawn[0].axes] == [0, 0]


def test_grey_means_the_same_in_every_picture(drawn: list[Figure]) -> None:
    view_grid({"dark": torch.full((1, 2, 1, 2, 2), 0.1), "bright": torch.full((1, 2, 1, 2, 2), 0.9)}, slices=2)
    assert {panel.images[0].get_clim() for panel in drawn[0].axes} == {(0, 1)}


def test_views_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"views of 'heart' are \(2, 8, 3, 4, 4\); expected \(V, F, 1, H, W\)"):
        view_grid({"heart": torch.zeros(2, 8, 3, 4, 4)})


def test_neighbours_carry_cosine_and_volume_and_come_from_other_volumes(drawn: list[Figure]) -> None:
    embeddings = torch.tensor([[1.0, 0.0], [1.0, 0.01], [0.6, 0.8], [0.0, 1.0]])
    images = torch.arange(4.0).reshape(4, 1, 1).expand(4, 3, 3) / 10

    neighbour_grid(embeddings, images, ["a", "a", "b", "c"], [0], k=2)

    labels = [panel.get_xlabel() for panel in drawn[0].axes]
    assert labels == ["query\na", "cosine 0.600\nb", "cosine 0.000\nc"]
    shown = [round(10 * float(panel.images[0].get_array().max())) for panel in drawn[0].axes]
    assert shown == [0, 2, 3]


def test_neighbours_of_the_own_volume_can_be_asked_for(drawn: list[Figure]) -> None:
    embeddings = torch.tensor([[1.0, 0.0], [1.0, 0.01], [0.6, 0.8]])
    neighbour_grid(embeddings, torch.zeros(3, 2, 2), ["a", "a", "b"], [0], k=1, other_volumes_only=False)
    assert drawn[0].axes[1].get_xlabel() == "cosine 1.000\na"


def test_long_volume_names_lose_their_middle(drawn: list[Figure]) -> None:
    names = ["ab12cd34ef56-region-003-axial", "ab12cd34ef56-region-004-axial"]
    neighbour_grid(torch.ones(2, 2), torch.zeros(2, 2, 2), names, [0], k=1)
    assert drawn[0].axes[1].get_xlabel() == "cosine 1.000\nab12cd34ef…-004-axial"


def test_lists_of_different_length_are_refused() -> None:
    with pytest.raises(ValueError, match="3 embeddings, 2 images and 3 volume names"):
        neighbour_grid(torch.ones(3, 2), torch.ones(2, 4, 4), ["a", "b", "c"], [0], k=1)


def test_bars_show_scores_from_top_to_bottom_beside_chance(drawn: list[Figure]) -> None:
    score_bars([Score("trained", 0.643, 0.02), Score("random", 0.4)], chance=0.391)

    panel = drawn[0].axes[0]
    bars = sorted(panel.patches, key=lambda bar: -bar.get_y())
    assert [bar.get_width() for bar in bars] == [0.643, 0.4]
    assert [label.get_text() for label in panel.get_yticklabels()] == ["trained", "random"]
    texts = _texts(drawn[0])
    assert "64.3 % ± 2.0" in texts
    assert "chance 39.1 %" in texts
    assert any(list(line.get_xdata()) == [0.391, 0.391] for line in panel.lines)


def test_a_figure_is_a_png_of_the_page_s_width() -> None:
    data = score_bars([Score("trained", 0.5)], chance=0.25)
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    assert matplotlib.image.imread(io.BytesIO(data), format="png").shape[1] == 1500
