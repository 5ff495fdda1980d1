"""Views against TorchIO's: what is compared is the same work, and what is shown follows from the times."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from vissl_jointssl.speed import views
from vissl_jointssl.speed.measures import load_measure
from vissl_jointssl.speed.timing import Timing
from vissl_jointssl.speed.views import check_same, measure_views, ratios, table

SHAPE = (12, 20, 18)


def test_the_ratio_is_of_the_family_that_does_the_same_work() -> None:
    measured = measure_views(2, torch.device("cpu"), SHAPE)
    assert load_measure("views") is views
    times = measured["times_as_fast"]
    assert ratios(measured) == {"views_speedup": times["released"], "default_views_speedup": times["crop"]}
    rates = measured["views_per_second"]
    assert rates["crop"] / rates["torchio"] == pytest.approx(times["crop"])
    assert rates["torchio"] == pytest.approx(7 / measured["seconds_per_round"]["torchio"]["median"])
    assert f"{times['crop']:.1f}" in table(measured).splitlines()[-1]


def test_a_ratio_is_of_medians(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = {"torchio": (7.0, 14.0, 700.0), "released": (1.0, 2.0, 3.0), "crop": (0.1, 0.1, 4.0)}
    monkeypatch.setattr(views, "time_by_turns", lambda *_: {name: Timing(taken[name]) for name in taken})
    measured = measure_views(3, torch.device("cpu"), SHAPE)
    assert measured["times_as_fast"] == pytest.approx({"released": 7.0, "crop": 140.0})
    assert ratios(measured) == pytest.approx({"views_speedup": 7.0, "default_views_speedup": 140.0})


def test_other_views_are_refused() -> None:
    case = views._draw_round(0, torch.device("cpu"), SHAPE)
    results = {
        "torchio": views._torchio_views(case),
        "released": views._our_views(case.volume, case.released),
        "crop": views._our_views(case.volume, case.crop),
    }
    check_same(case, results)
    worse = [one + 0.01 if number == 4 else one for number, one in enumerate(results["released"])]
    with pytest.raises(ValueError, match=r"TorchIO's Blur is another view than ours: 100.00% of its voxels"):
        check_same(case, {**results, "released": worse})
    other = [replace(view, gamma=2.0) for view in case.crop]  # type: ignore[type-var]
    with pytest.raises(ValueError, match=r"crop view 0 of the batch is another view than ours"):
        check_same(case, {**results, "crop": views._our_views(case.volume, other)})
    with pytest.raises(ValueError, match=r"TorchIO's Flip has shape \(12, 1, 20, 18\), ours \(6, 1, 20, 18\)"):
        check_same(case, {**results, "released": [one[:6] for one in results["released"]]})


def test_without_torchio_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views.importlib, "util", SimpleNamespace(find_spec=lambda name: None))
    with pytest.raises(ValueError, match="torchio is not installed"):
        measure_views(1, torch.device("cpu"), SHAPE)
