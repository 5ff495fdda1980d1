from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from vissl_jointssl.report.curves import LogError
from vissl_jointssl.report.measures import Series, read_measures


def _file(folder: Path, *lines: dict[str, Any], end: str = "") -> Path:
    path = folder / "collapse.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + end)
    return path


def _look(iteration: int, cosine: float | None = 0.5) -> dict[str, Any]:
    return {"iteration": iteration, "mean_cosine": cosine, "volumes": 8}


def test_every_measure_becomes_a_series(tmp_path: Path) -> None:
    measures = read_measures(_file(tmp_path, {"limits": {"mean_cosine": 0.9}}, _look(0), _look(5, 0.25)))
    assert measures.series == {"mean_cosine": Series((0, 5), (0.5, 0.25)), "volumes": Series((0, 5), (8, 8))}
    assert measures.limits == {"mean_cosine": 0.9}
    assert measures.warnings == measures.problems == ()


def test_what_was_not_measured_is_nan(tmp_path: Path) -> None:
    measures = read_measures(_file(tmp_path, _look(0, None), {"iteration": 5, "volumes": 8}))
    assert all(math.isnan(value) for value in measures.series["mean_cosine"].values)


def test_a_resumed_run_replaces_what_it_repeats_and_says_again(tmp_path: Path) -> None:
    first = [
        {"limits": {"mean_cosine": 0.9}},
        _look(0),
        _look(5),
        {"iteration": 5, "warning": "early"},
        _look(10, 0.99),
    ]
    lost = {"iteration": 10, "warning": "iteration 10: all alike"}
    resumed = [{"limits": {"mean_cosine": 0.8}}, _look(10, 0.7), _look(15)]
    measures = read_measures(_file(tmp_path, *first, lost, *resumed))
    assert measures.series["mean_cosine"] == Series((0, 5, 10, 15), (0.5, 0.5, 0.7, 0.5))
    assert measures.warnings == ("early",)
    assert measures.limits == {"mean_cosine": 0.8}


def test_a_line_cut_short_and_a_line_of_another_kind_are_reported(tmp_path: Path) -> None:
    measures = read_measures(_file(tmp_path, _look(0), {"colour": "red"}, end='{"iteration": 5, "mean'))
    assert measures.problems == (
        "line 3 is cut short, as a killed run leaves it",
        "line 2 is no look, which has an iteration",
    )
    assert measures.series["volumes"].iterations == (0,)


def test_a_missing_file_and_one_without_a_look_are_errors(tmp_path: Path) -> None:
    with pytest.raises(LogError, match=r"collapse\.jsonl: no such log"):
        read_measures(tmp_path / "collapse.jsonl")
    with pytest.raises(LogError, match=r"collapse\.jsonl: no look in it; a run takes its first one when"):
        read_measures(_file(tmp_path, {"limits": {}}))
