"""The page of evaluations: every number is on it, and what is missing is said."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from vissl_jointssl import cli
from vissl_jointssl.evaluation.results import read_results
from vissl_jointssl.report.evaluation_page import render_evaluations
from vissl_jointssl.report.evaluations import read_evaluations

Make = Callable[..., Path]
DIFFERENCES = ("less scratch, seed by seed", "less scratch", "95 % interval", "p")


class Page(HTMLParser):
    """Tables as lists of rows of cells, alt texts, and all text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: list[list[list[str]]] = []
        self.alts: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self.cell = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self.cell = True
        elif tag == "img":
            self.alts.append(dict(attrs)["alt"] or "")

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self.cell = False

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.cell:
            self.tables[-1][-1][-1] += data


def page_of(places: Sequence[Path]) -> Page:
    evaluations, suites = read_evaluations(places)
    return Page(render_evaluations(evaluations, suites))


def test_mean_deviation_seeds_difference_interval_p_and_the_papers_number_are_in_a_row(make_evaluation: Make) -> None:
    path = make_evaluation(seeds=3)
    results = read_results(path)
    header, scratch, ours = page_of([path]).tables[0]
    assert header == ["start", "labels", "iou", "seeds", *DIFFERENCES, "the paper"]
    values = [run.metrics["iou"] for run in results.runs if run.weights == "stage3_swav"]
    spread = f"{np.mean(values):.4f} ± {np.std(values, ddof=1):.4f}"
    (found,) = [one for one in results.comparisons if one["metric"] == "iou"]
    interval = f"{found['low']:+.4f} to {found['high']:+.4f}"
    p = f"{found['p_value']:.4f}"
    iou = {(run.weights, run.seed): run.metrics["iou"] for run in results.runs}
    by_seed = ", ".join(f"{iou['stage3_swav', seed] - iou['scratch', seed]:+.3f}" for seed in range(3))
    difference = f"{found['difference']:+.4f}"
    assert ours == ["stage3_swav", "100 %", spread, "3", by_seed, difference, interval, p, "0.8489 ± 0.0068"]
    assert scratch[4:] == ["", "", "", "", "0.7425 ± 0.0205"]


def test_of_many_seeds_the_smallest_and_the_largest_difference_are_told(make_evaluation: Make) -> None:
    path = make_evaluation(seeds=7)
    iou = {(run.weights, run.seed): run.metrics["iou"] for run in read_results(path).runs}
    differences = [iou["stage3_swav", seed] - iou["scratch", seed] for seed in range(7)]
    assert page_of([path]).tables[0][2][4] == f"{min(differences):+.3f} to {max(differences):+.3f}"


def test_a_seed_that_one_start_lacks_or_left_undefined_is_in_no_difference(make_evaluation: Make) -> None:
    (evaluation,), _ = read_evaluations([make_evaluation(seeds=3, undefined=True)])
    assert len(evaluation.seed_differences("stage3_swav", 1.0, "iou")) == 3
    assert evaluation.seed_differences("stage3_swav", 1.0, "hd95") == []
    fewer = replace(evaluation, runs=tuple(r for r in evaluation.runs if (r.weights, r.seed) != ("scratch", 1)))
    assert len(fewer.seed_differences("stage3_swav", 1.0, "iou")) == 2


def test_each_fraction_has_its_rows_and_its_number_of_the_paper(make_evaluation: Make) -> None:
    page = page_of([make_evaluation("jsrt", "segmentation_2d", "dice", fractions=(0.2, 0.4, 1.0))])
    rows = {(row[0], row[1]): row[-1] for row in page.tables[0][1:]}
    assert rows["scratch", "20 %"] == "0.8405"
    assert rows["stage3_swav", "40 %"] == "0.9303"
    assert rows["stage3_swav", "100 %"] == "0.9445"
    assert any("against the share of labels" in alt for alt in page.alts)


def test_an_evaluation_that_the_paper_does_not_have_has_no_column_of_it(make_evaluation: Make) -> None:
    page = page_of([make_evaluation("mine")])
    assert "the paper" not in page.text
    assert page.tables[0][0][-1] == "p"


def test_what_is_undefined_is_counted_and_said(make_evaluation: Make) -> None:
    page = page_of([make_evaluation(undefined=True)])
    cells = [row for table in page.tables for row in table if row[:2] == ["hd95", "stage3_swav"]]
    assert cells[0][-1] == "undefined (2)"
    assert "hd95 of stage3_swav at 100 % of the labels is undefined in 2 of 2 runs" in page.text
    assert "hd95 of stage3_swav is undefined for 2 of 10 cases over all runs" in page.text
    assert "nan" not in page.text


def test_what_it_was_made_from_is_folded_below(make_evaluation: Make) -> None:
    page = page_of([make_evaluation(options={"epochs": 3, "labels": [3]})])
    rows = dict(row for row in page.tables[-1] if len(row) == 2)
    assert rows["weights stage3_swav"] == "stage3_swav.torch"
    assert rows["stage3_swav, sha256"] == "ab" * 32
    assert rows["data, manifest"] == "cd" * 32
    assert rows["options.labels"] == "[3]"
    assert rows["commit"] == "1234abc"
    assert rows["command"] == "jointssl evaluate mine.yaml seeds=2"
    assert page.tags.count("details") == 4


def test_missing_data_is_said_and_no_error(make_evaluation: Make) -> None:
    page = page_of([make_evaluation()])
    assert "No pictures of predictions: the data is not here. Give its manifest.csv with --manifest." in page.text
    assert not any("truth and prediction" in alt for alt in page.alts)


def test_names_are_escaped_and_nothing_is_loaded(make_evaluation: Make) -> None:
    nasty = "<script>alert(1)<script>&"
    path = make_evaluation(nasty, starts=("scratch", nasty))
    text = render_evaluations(*read_evaluations([path]))
    page = Page(text)
    assert "script" not in page.tags
    assert page.tables[0][2][0] == nasty
    assert re.findall(r"https?:|url\(|@import", text) == []


def test_every_picture_has_a_text(make_evaluation: Make) -> None:
    page = page_of([make_evaluation(fractions=(0.5, 1.0), classes=("Nodule/Mass", "ILD"))])
    assert len(page.alts) == 5
    assert all(len(alt) > 20 for alt in page.alts)
    mean = page.tables[0][1][2].split(" ")[0]
    assert f"scratch {float(mean):.3f} at 50 %" in page.alts[0]


def test_the_batch_sizes_that_the_paper_averages_are_averaged(make_evaluation: Make, tmp_path: Path) -> None:
    paths = [
        make_evaluation(f"luna2016_v2_batch{size}", "classification_3d", "auc", cases=size) for size in (8, 16, 32)
    ]
    values = [r.metrics["auc"] for path in paths for r in read_results(path).runs if r.weights == "stage3_swav"]
    expected = ["stage3_swav", f"{np.mean(values):.4f} ± {np.std(values, ddof=1):.4f}", "6", "0.9422 ± 0.0111"]
    assert page_of([tmp_path]).tables[-1][2] == expected


def test_a_suite_says_what_failed_what_was_left_out_and_its_parameters(
    make_evaluation: Make, make_suite: Make, tmp_path: Path
) -> None:
    make_evaluation(folder="s")
    facts = {"left_out": ["imagenet"], "parameters": {"released": 31162884}}
    make_suite("mine", "s", evaluations=[{"name": "jsrt", "fault": "the loss is nan"}], **facts)
    page = page_of([tmp_path])
    assert "mine: jsrt failed: the loss is nan" in page.text
    assert "mine: no weights were given for imagenet" in page.text
    assert ["preset released", "31.16 M"] in page.tables[-1]
    assert ["the paper, Our", "31.16 M"] in page.tables[-1]


def test_the_command_writes_the_page(make_evaluation: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_evaluation()
    assert cli.main(["report", str(tmp_path), "--out", str(tmp_path / "page.html")]) == 0
    assert "1 evaluation" in capsys.readouterr().out
    assert "0.8489 ± 0.0068" in (tmp_path / "page.html").read_text(encoding="utf-8")
    assert cli.main(["report", str(tmp_path / "no"), "--out", str(tmp_path / "page.html")]) == 1
    assert "does not exist; give results.json files" in capsys.readouterr().err
