from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from vissl_jointssl.report.curves import LogError, read_loss_curve, read_meters


def _line(iteration: int, loss: float, epoch: int = 0, lr: object = 0.01) -> str:
    """One line as vissl/hooks/log_hooks.py:245 writes it."""
    logged = {"Rank": 0, "ep": epoch, "iter": iteration, "lr": lr, "loss": loss, "btime(ms)": 812, "eta": "0:00:01"}
    return json.dumps({**logged, "peak_mem(M)": -1}) + "\n"


def _log(folder: Path, text: str) -> Path:
    path = folder / "stdout.json"
    path.write_text(text)
    return path


def test_a_clean_log_is_read_in_full(tmp_path: Path) -> None:
    curve = read_loss_curve(_log(tmp_path, _line(1, 5.5) + _line(5, 5.1) + _line(10, 4.0, epoch=1)))

    assert [(point.iteration, point.loss, point.epoch) for point in curve.points] == [
        (1, 5.5, 0),
        (5, 5.1, 0),
        (10, 4.0, 1),
    ]
    assert (curve.first_loss, curve.last_loss, curve.epochs) == (5.5, 4.0, 2)
    assert (curve.points[0].learning_rate, curve.points[0].milliseconds) == (0.01, 812)
    assert curve.problems == ()


def test_a_resumed_run_replaces_what_it_repeats(tmp_path: Path) -> None:
    first = "".join(_line(iteration, 5.0) for iteration in (1, 5, 10, 15))
    resumed = "".join(_line(iteration, 4.0) for iteration in (10, 15, 20))
    curve = read_loss_curve(_log(tmp_path, first + resumed))
    assert [(point.iteration, point.loss) for point in curve.points] == [(1, 5), (5, 5), (10, 4), (15, 4), (20, 4)]


def test_a_run_started_afresh_in_the_same_place_replaces_all_of_the_old_one(tmp_path: Path) -> None:
    curve = read_loss_curve(_log(tmp_path, _line(1, 9.0) + _line(50, 9.0) + _line(1, 3.0)))
    assert [(point.iteration, point.loss) for point in curve.points] == [(1, 3.0)]


def test_a_last_line_cut_short_is_reported_and_the_rest_is_kept(tmp_path: Path) -> None:
    curve = read_loss_curve(_log(tmp_path, _line(1, 5.0) + _line(5, 4.0)[:30]))
    assert [point.iteration for point in curve.points] == [1]
    assert curve.problems == ("line 2 is cut short, as a killed run leaves it",)


def test_a_line_written_on_by_the_resumed_run_keeps_its_second_half(tmp_path: Path) -> None:
    curve = read_loss_curve(_log(tmp_path, _line(1, 5.0) + _line(5, 4.5)[:30] + _line(5, 4.0) + _line(10, 3.0)))
    assert [(point.iteration, point.loss) for point in curve.points] == [(1, 5.0), (5, 4.0), (10, 3.0)]
    assert len(curve.problems) == 1


def test_a_line_of_another_kind_is_reported(tmp_path: Path) -> None:
    curve = read_loss_curve(_log(tmp_path, _line(1, 5.0) + '{"colour": "red"}\n'))
    assert len(curve.points) == 1
    assert "line 2 is no logged iteration" in curve.problems[0]


def test_nan_and_several_learning_rates_are_read(tmp_path: Path) -> None:
    curve = read_loss_curve(_log(tmp_path, _line(1, math.nan, lr=[0.3, 0.1])))
    assert math.isnan(curve.last_loss)
    assert curve.points[0].learning_rate == 0.3


def test_a_missing_log_is_named(tmp_path: Path) -> None:
    with pytest.raises(LogError, match=r"stdout\.json: no such log; run the stage first"):
        read_loss_curve(tmp_path / "stdout.json")


@pytest.mark.parametrize("text", ["", "\n", '{"Rank": 0, "ep'])
def test_a_log_without_an_iteration_is_an_error(tmp_path: Path, text: str) -> None:
    with pytest.raises(LogError, match=r"stdout\.json: no logged iteration in it"):
        read_loss_curve(_log(tmp_path, text))


def _metrics(folder: Path, *lines: dict[str, object]) -> Path:
    path = folder / "metrics.json"
    path.write_text("".join(json.dumps(line, sort_keys=True) + "\n" for line in lines))
    return path


def test_meters_are_found_by_split_measure_and_layer(tmp_path: Path) -> None:
    path = _metrics(
        tmp_path,
        {
            "iteration": 4,
            "phase_idx": 0,
            "train_phase_idx": 0,
            "train_accuracy_list_meter": {"top_1": {"res5": [40.0]}},
        },
        {
            "iteration": 4,
            "phase_idx": 1,
            "train_phase_idx": 0,
            "test_accuracy_list_meter": {"top_1": {"res5": [61.5], "res4": [50.0, 51.0]}},
        },
    )
    values = {(reading.name, reading.epoch): reading.value for reading in read_meters(path)}
    assert values == {
        ("train_accuracy_list_meter.top_1.res5", 0): 40.0,
        ("test_accuracy_list_meter.top_1.res5", 0): 61.5,
        ("test_accuracy_list_meter.top_1.res4.0", 0): 50.0,
        ("test_accuracy_list_meter.top_1.res4.1", 0): 51.0,
    }


def test_a_phase_run_again_counts_once(tmp_path: Path) -> None:
    line = {"iteration": 4, "phase_idx": 1, "train_phase_idx": 0, "test_accuracy_list_meter": {"top_1": {"0": [10.0]}}}
    again = {**line, "test_accuracy_list_meter": {"top_1": {"0": [20.0]}}}
    (reading,) = read_meters(_metrics(tmp_path, line, again))
    assert (reading.value, reading.iteration) == (20.0, 4)


def test_half_a_line_of_meters_is_an_error_because_a_score_could_be_missing(tmp_path: Path) -> None:
    path = _metrics(tmp_path, {"iteration": 4})
    path.write_text(path.read_text() + '{"iteration": 8, "test_acc')
    with pytest.raises(LogError, match=r"metrics\.json: line 2 is cut short"):
        read_meters(path)
