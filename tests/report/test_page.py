from __future__ import annotations

import base64
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from vissl_jointssl.report.contents import Figure, RunReport, StageSummary, Table
from vissl_jointssl.report.page import duration, render, write_report

PNG = b"\x89PNG\r\n\x1a\nrest of it"
NASTY = "<script>alert(\"1\")</script> & 'x'"

REPORT = RunReport(
    title="demo",
    lead="three stages",
    stages=[
        StageSummary("1, slices", "jointssl/stage1_swav", 4, 5.59123, 4.7, 161.2),
        StageSummary("export", "none", None, None, None, None),
    ],
    figures=[Figure("views", PNG, "two views", "look here"), Figure("curves", PNG, "losses")],
    tables=[Table("linear_evaluation", ["embedding", "top-1", "chance"], [["E", 64.3, 39.1], ["none", None, 39.1]])],
    environment={"torch": "2.11.0"},
    commands=["make setup", "make demo"],
    warnings=["line 12 is cut short"],
)


class _Page(HTMLParser):
    """Tags, attributes and text of a page; complains about tags that do not nest."""

    VOID = frozenset({"meta", "img", "br"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style" and data.strip():
            self.texts.append(data.strip())


def test_sections_come_in_the_order_of_the_work_and_empty_ones_are_left_out() -> None:
    headings = re.findall(r"<h2[^>]*>(.*?)</h2>", render(REPORT))
    assert headings == ["What ran", "Losses", "Views", "Linear evaluation", "Environment", "Reproduce"]
    assert "<h2" not in render(RunReport(title="nothing"))


def test_numbers_and_captions_reach_the_page() -> None:
    texts = _Page(render(REPORT)).texts
    for expected in ("three stages", "5.591", "4.7", "2 min 41 s", "64.3", "39.1", "look here", "line 12 is cut short"):
        assert expected in texts
    assert "make setup\nmake demo" in texts
    assert "note" not in texts  # no stage has one


def test_a_note_on_one_stage_brings_its_column() -> None:
    texts = _Page(render(RunReport("x", stages=[StageSummary("1", "c", 1, 2.0, 1.0, 3.0, "resumed once")]))).texts
    assert "resumed once" in texts
    assert "note" in texts


def test_columns_of_numbers_are_aligned_right() -> None:
    page = _Page(render(RunReport("x", tables=REPORT.tables)))
    classes = [attributes.get("class") for tag, attributes in page.seen if tag in ("th", "td")]
    assert classes == [None, "number", "number"] * 3


def test_pictures_are_inside_the_page_with_a_text_for_those_who_cannot_see_them() -> None:
    images = [attributes for tag, attributes in _Page(render(REPORT)).seen if tag == "img"]
    assert [image["alt"] for image in images] == ["losses", "two views"]
    for image in images:
        kind, data = (image["src"] or "").split(",")
        assert kind == "data:image/png;base64"
        assert base64.b64decode(data) == PNG


def test_the_page_loads_nothing_and_runs_nothing() -> None:
    text = render(REPORT)
    page = _Page(text)
    assert not {tag for tag, _ in page.seen} & {"script", "link", "iframe", "object", "form", "a"}
    assert re.findall(r"https?:|url\(|@import", text) == []
    policy = next(attributes for tag, attributes in page.seen if "http-equiv" in attributes)
    assert (policy["content"] or "").startswith("default-src 'none'")


def test_every_text_from_outside_is_escaped() -> None:
    report = RunReport(
        title=NASTY,
        lead=NASTY,
        stages=[StageSummary(NASTY, NASTY, 1, 1.0, 1.0, 1.0, NASTY)],
        figures=[Figure("curves", PNG, NASTY, NASTY)],
        tables=[Table("export", [NASTY], [[NASTY]], NASTY)],
        environment={NASTY: NASTY},
        commands=[NASTY],
        warnings=[NASTY],
    )
    page = _Page(render(report))
    assert "script" not in {tag for tag, _ in page.seen}
    # Two headings, the lead, 3 of the stage, 1 of the figure, 3 of the table, 2 of the environment, command, warning.
    assert page.texts.count(NASTY) == 14
    assert [attributes["alt"] for tag, attributes in page.seen if tag == "img"] == [NASTY]


def test_the_page_is_readable_in_a_dark_scheme() -> None:
    assert "color-scheme: light dark" in render(REPORT)
    assert "prefers-color-scheme: dark" in render(REPORT)


def test_writing_replaces_the_old_page_and_leaves_nothing_else(tmp_path: Path) -> None:
    write_report(RunReport("old"), tmp_path / "runs" / "report.html")
    write_report(REPORT, tmp_path / "runs" / "report.html")
    assert (tmp_path / "runs" / "report.html").read_text(encoding="utf-8") == render(REPORT)
    assert len(list((tmp_path / "runs").iterdir())) == 1


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.4, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (187, "3 min 07 s"),
        (3599.7, "1 h 00 min"),
        (7530, "2 h 05 min"),
    ],
)
def test_durations_are_said_as_people_say_them(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def test_an_unknown_section_is_answered_with_the_nearest_one() -> None:
    with pytest.raises(ValueError, match=r"unknown report section 'curve'; did you mean curves\?"):
        Figure("curve", PNG, "x")
    with pytest.raises(ValueError, match="unknown report section 'zzz'; known: collapse, curves, export"):
        Table("zzz", [], [])


def test_a_figure_that_is_no_png_is_refused() -> None:
    with pytest.raises(ValueError, match="figure 'losses' begins with b'GIF89a', which is no PNG"):
        Figure("curves", b"GIF89a", "losses")


def test_a_row_of_another_length_is_named() -> None:
    with pytest.raises(ValueError, match="row 2 of table 'scores' has 1 cells for 2 columns"):
        Table("export", ["a", "b"], [[1, 2], [3]], "scores")
