"""`jointssl speed inter` on a narrow encoder: what is compared is the same, and the ratios follow from the times."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch

from vissl_jointssl.cli import main
from vissl_jointssl.speed import inter
from vissl_jointssl.speed.inter import WAYS, measure_inter, ratios, table
from vissl_jointssl.speed.timing import Timing

SMALL: dict[str, Any] = {"batch": 1, "width": 16, "blocks": 1}


def test_every_way_is_timed_and_checked_and_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(inter, "measure_inter", lambda *given: measure_inter(*given, **SMALL))
    assert main(["speed", "inter", "--device", "cpu", "--repetitions", "2", "--json"]) == 0
    measured = json.loads(capsys.readouterr().out)
    assert measured["what"] == "inter"
    assert measured["input"] == {"size": [1, 64, 16], "count": 2}
    assert set(measured["seconds_per_pass"]) == set(WAYS)
    assert all(0 < taken["first_quartile"] <= taken["median"] for taken in measured["seconds_per_pass"].values())
    assert "deformable-attention" in measured["machine"]["versions"]
    lines = table(measured).splitlines()
    assert "float32, 2 turns" in lines[0]
    assert [line.split("  ")[0] for line in lines if " ms" in line] == list(WAYS.values())


def test_ratios_are_of_medians_to_the_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    medians = {"package": 6.0, "exact": 5.0, "released": 0.5, "slice": 0.1}
    monkeypatch.setattr(
        inter, "time_by_turns", lambda *_: {name: Timing((0.01, taken, 90.0)) for name, taken in medians.items()}
    )
    measured = measure_inter(1, **SMALL)
    assert ratios(measured) == {"inter_speedup": pytest.approx(60.0), "inter_released_speedup": pytest.approx(12.0)}


def _off(name: str, which: int, by: float) -> Callable[..., None]:
    """`check_same` that sees one number of one way changed."""

    def check(case: Any, results: Any) -> None:
        changed = [value.clone() for value in results[name]]
        changed[which][0, 3, 2] += by
        inter_check(case, {**results, name: tuple(changed)})

    inter_check = inter.check_same
    return check


@pytest.mark.parametrize("name", ["exact", "released"])
@pytest.mark.parametrize(("which", "by"), [(0, 1e-3), (0, float("nan")), (1, 1.0)])
def test_a_way_that_computes_something_else_ends_the_measure(
    monkeypatch: pytest.MonkeyPatch, name: str, which: int, by: float
) -> None:
    monkeypatch.setattr(inter, "check_same", _off(name, which, by))
    with pytest.raises(ValueError, match=rf"{WAYS[name]}: outputs differ .* no ratio is told"):
        measure_inter(1, **SMALL)


def test_measuring_leaves_the_random_numbers_as_they_were() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    measure_inter(1, **SMALL)
    assert torch.equal(torch.get_rng_state(), before)


def test_without_the_package_the_error_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["speed", "inter", "--device", "cpu"]) == 1
    assert "deformable_attention is not installed, and it is what we are measured against; pip install" in (
        capsys.readouterr().err
    )
