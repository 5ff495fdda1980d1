"""`jointssl speed`: names, settings, and the one line of all measures."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from vissl_jointssl.cli import main
from vissl_jointssl.speed import command, scaling_figure
from vissl_jointssl.speed.measures import MEASURES, Settings, load_measure


@pytest.mark.parametrize("name", MEASURES)
def test_every_measure_has_its_three_functions(name: str) -> None:
    measure = load_measure(name)
    assert all(callable(getattr(measure, part)) for part in ("measure", "table", "ratios"))


def test_all_ends_with_one_line_of_every_ratio(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[tuple[str, Settings]] = []

    def load(name: str) -> SimpleNamespace:
        def measure(settings: Settings) -> dict[str, object]:
            asked.append((name, settings))
            return {"what": name, "machine": {"cores": 2}}

        return SimpleNamespace(
            measure=measure,
            table=lambda found: f"table of {found['what']}",
            ratios=lambda found: {f"{name}_ratio": 2.0},
        )

    monkeypatch.setattr(command, "load_measure", load)
    assert main(["speed", "all", "--repetitions", "7", "--device", "cpu"]) == 0
    *tables, last = capsys.readouterr().out.splitlines()
    assert json.loads(last) == {"machine": {"cores": 2}, "ratios": {f"{name}_ratio": 2.0 for name in MEASURES}}
    assert [line for line in tables if line.startswith("table of")] == [f"table of {name}" for name in MEASURES]
    assert asked == [(name, Settings(repetitions=7)) for name in MEASURES]
    drawn: list[tuple[object, Path]] = []
    monkeypatch.setattr(scaling_figure, "draw_scaling", lambda found, out: drawn.append((found["what"], out)))
    assert main(["speed", "all", "--device", "cpu", "--json", "--figure", "x.svg"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1
    assert drawn == [("scaling", Path("x.svg"))]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["loder"], "no measure is called 'loder'; did you mean loader?"),
        (["step", "--repetitions", "0"], "repetitions is 0; expected at least 1"),
        (["step", "--figure", "x.svg"], "only scaling has a figure, step has none; leave --figure out"),
    ],
)
def test_bad_words_are_answered(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["speed", *words]) == 1
    assert said in capsys.readouterr().err
