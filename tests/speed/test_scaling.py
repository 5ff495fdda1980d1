"""`jointssl speed scaling`: slopes are those of what was timed, and each run is what its axis says."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from vissl_jointssl.speed import scaling
from vissl_jointssl.speed.engine_runs import StepTimes
from vissl_jointssl.speed.measures import Settings
from vissl_jointssl.speed.scaling import Range
from vissl_jointssl.speed.scaling_figure import draw_scaling


@pytest.mark.parametrize("power", [1.0, 2.0, 0.5])
def test_the_slope_is_the_power(power: float) -> None:
    places = [3, 10, 31, 100]
    assert scaling.slope(places, [7 * place**power for place in places]) == pytest.approx(power)


def test_runs_vary_one_number_and_slopes_leave_the_warm_up_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs: dict[str, set[str]] = {}

    def pretend(folder: Path, mode: str, overrides: Sequence[str], threads: int | None = None) -> StepTimes:
        runs[folder.name] = set(overrides)
        if folder.name.startswith("ranks"):
            assert threads == 1
            return StepTimes((9.0, 9.0, *(4.0 + int(folder.name[-1]),) * 3), (0.0,) * 5, 1)
        assert threads is None
        said = dict(override.split("=", 1) for override in overrides)
        slices, volumes = (
            int(said[f"config.DATA.TRAIN.{key}"]) for key in ("TRANSFORMS.0.num_slices", "BATCHSIZE_PER_REPLICA")
        )
        steps = int(said["config.DATA.TRAIN.DATA_LIMIT"]) // volumes
        each = slices**1.1 * volumes**0.9
        seconds = (each,) * steps if folder.name.startswith("data") else (99.0, 99.0, *(each,) * (steps - 2))
        return StepTimes(seconds, (0.0,) * steps, 100 + steps)

    monkeypatch.setattr(scaling, "timed_run", pretend)
    measured = scaling.measure(Settings(repetitions=3), Range((2, 4, 8), (1, 2), (5, 10), 3, 8))
    assert list(runs) == [
        "slices2",
        "slices4",
        "slices8",
        "volumes1",
        "volumes2",
        "data_set5",
        "data_set10",
        "ranks1",
        "ranks2",
    ]
    assert runs["ranks2"] - runs["ranks1"] == {
        "config.DISTRIBUTED.NUM_PROC_PER_NODE=2",
        "config.DATA.TRAIN.DATA_LIMIT=10",
    }
    assert runs["volumes2"] - runs["volumes1"] == {
        "config.DATA.TRAIN.BATCHSIZE_PER_REPLICA=2",
        "config.DATA.TRAIN.DATA_LIMIT=10",
    }
    assert scaling.ratios(measured) == {
        "slices_slope": pytest.approx(1.1),
        "volumes_slope": pytest.approx(0.9),
        "data_set_slope": pytest.approx(1.0),
        "memory_growth": pytest.approx(110 / 105),
        "efficiency_of_two_ranks": pytest.approx(5 / 6),
    }
    assert "slices of a view, F: step ~ F^1.10" in scaling.table(measured)
    assert "a step 5.000 s on 1, 6.000 s on 2; efficiency 0.83" in scaling.table(measured)
    draw_scaling(measured, tmp_path / "scaling.svg")
    drawn = (tmp_path / "scaling.svg").read_text()
    assert drawn.count("measured, slope") + drawn.count("<!-- measured") >= 3
