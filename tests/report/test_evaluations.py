"""Reading results.json and suite.json."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vissl_jointssl.evaluation.results import read_results
from vissl_jointssl.report.evaluations import EvaluationFileError, read_evaluations

Make = Callable[..., Path]


def change(path: Path, **facts: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | facts))


def test_what_the_evaluation_wrote_is_what_the_report_reads(make_evaluation: Make) -> None:
    path = make_evaluation(fractions=(0.2, 1.0), undefined=True)
    (mine,), _ = read_evaluations([path])
    theirs = read_results(path)
    for ours, run in zip(mine.runs, theirs.runs, strict=True):
        assert (ours.weights, ours.fraction, ours.seed) == (run.weights, run.fraction, run.seed)
        assert ours.metrics == pytest.approx(run.metrics, nan_ok=True)
        for case, scores in run.cases.items():
            assert ours.cases[case] == pytest.approx(scores, nan_ok=True)
        assert list(ours.losses) == run.losses
    for mean, summary in zip(mine.means, theirs.summary, strict=True):
        assert mean.mean == pytest.approx(summary.mean, nan_ok=True)
        assert (mean.deviation, mean.seeds) == (summary.deviation, summary.seeds)
    assert len(mine.differences) == len(theirs.comparisons)
    assert mine.fractions == (0.2, 1.0)


def test_undefined_runs_are_counted(make_evaluation: Make) -> None:
    (evaluation,), _ = read_evaluations([make_evaluation(undefined=True)])
    mean = evaluation.mean("stage3_swav", 1.0, "hd95")
    assert mean is not None
    assert math.isnan(mean.mean)
    assert (mean.seeds, mean.undefined) == (0, 2)


def test_folders_are_searched_at_any_depth_and_a_file_counts_once(make_evaluation: Make, tmp_path: Path) -> None:
    first = make_evaluation("a", folder="runs/deep/deeper")
    make_evaluation("b")
    evaluations, _ = read_evaluations([tmp_path, first, first.parent])
    assert sorted(evaluation.name for evaluation in evaluations) == ["a", "b"]


def test_two_files_of_one_evaluation_are_refused_and_both_named(make_evaluation: Make, tmp_path: Path) -> None:
    path = make_evaluation("same")
    shutil.copytree(path.parent, tmp_path / "copy")
    with pytest.raises(EvaluationFileError, match=r"copy/results.json and .*same/results.json are both .*'same'"):
        read_evaluations([tmp_path])


def test_two_suites_may_have_the_same_evaluation(make_evaluation: Make, make_suite: Make, tmp_path: Path) -> None:
    make_evaluation("heart", folder="table4")
    make_evaluation("heart", folder="table6")
    make_suite("table4", "table4")
    make_suite("table6", "table6")
    evaluations, suites = read_evaluations([tmp_path])
    assert [evaluation.title for evaluation in evaluations] == ["table4: heart", "table6: heart"]
    assert [suite.name for suite in suites] == ["table4", "table6"]


def test_every_fault_is_said_at_once(make_evaluation: Make, tmp_path: Path) -> None:
    old, damaged, stranger = (make_evaluation(name) for name in ("old", "damaged", "stranger"))
    change(old, version=7)
    damaged.write_text("{")
    change(stranger, weights={})
    (tmp_path / "empty").mkdir()
    with pytest.raises(EvaluationFileError) as caught:
        read_evaluations([tmp_path / "runs", tmp_path / "empty", tmp_path / "nowhere"])
    for words in (
        "old/results.json: is of version 7, expected 1",
        "damaged/results.json: cannot be read",
        "stranger/results.json: has runs of scratch, stage3_swav, which weights does not name",
        "empty: holds no results.json at any depth",
        "nowhere: does not exist",
    ):
        assert words in str(caught.value)


@pytest.mark.parametrize("key", ["name", "runs", "summary", "made_with"])
def test_a_file_without_a_part_is_no_results_file(make_evaluation: Make, key: str) -> None:
    path = make_evaluation()
    content = json.loads(path.read_text())
    del content[key]
    path.write_text(json.dumps(content))
    with pytest.raises(
        EvaluationFileError, match=rf"is no results file \(KeyError: '{key}'\); run `jointssl evaluate`"
    ):
        read_evaluations([path])


def test_a_suite_file_that_is_none_is_said(make_suite: Make) -> None:
    path = make_suite("t", "t", evaluations=[{"name": "x"}])
    with pytest.raises(EvaluationFileError, match=r"suite.json: is no suite file \(KeyError: 'fault'\)"):
        read_evaluations([path])
