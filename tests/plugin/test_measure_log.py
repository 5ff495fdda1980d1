"""The writer that hooks share."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from vissl_jointssl.plugin.hooks.measure_log import MeasureLog, is_logging_step

from vissl.config import AttrDict  # isort: skip - after the plugin has made VISSL importable


def _log(folder: Path, tensorboard: bool = False) -> MeasureLog:
    setup = {"USE_TENSORBOARD": tensorboard, "FLUSH_EVERY_N_MIN": 5}
    config = {
        "CHECKPOINT": {"DIR": str(folder)},
        "DISTRIBUTED": {"NUM_NODES": 1},
        "HOOKS": {"TENSORBOARD_SETUP": setup},
    }
    return MeasureLog(AttrDict(config), "measures.jsonl", "Group")


def test_a_later_run_appends_to_what_is_there(tmp_path: Path) -> None:
    _log(tmp_path).measures(3, {"one": 1.5, "none": None})
    _log(tmp_path).line({"iteration": 4, "warning": "words"})
    lines = [json.loads(line) for line in (tmp_path / "measures.jsonl").read_text().splitlines()]
    assert lines == [{"iteration": 3, "one": 1.5, "none": None}, {"iteration": 4, "warning": "words"}]


def test_what_is_not_finite_becomes_null_as_json_has_no_nan(tmp_path: Path) -> None:
    _log(tmp_path).measures(0, {"one": math.nan, "two": math.inf})
    assert (tmp_path / "measures.jsonl").read_text() == '{"iteration": 0, "one": null, "two": null}\n'


def test_tensorboard_is_written_only_when_the_run_uses_it(tmp_path: Path) -> None:
    without = _log(tmp_path)
    without.measures(0, {"one": 1.0})
    without.close()
    assert not (tmp_path / "tb_logs").exists()
    log = _log(tmp_path, tensorboard=True)
    log.measures(7, {"one": 1.5, "none": None, "two": math.nan})
    log.close()

    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(tmp_path / "tb_logs"))
    board.Reload()
    assert board.Tags()["scalars"] == ["Group/one"]
    assert [(point.step, point.value) for point in board.Scalars("Group/one")] == [(7, 1.5)]


@pytest.mark.parametrize("every", [1, 3, 10, 40])
def test_the_logging_steps_are_vissls(every: int) -> None:
    # As vissl/hooks/log_hooks.py has it.
    theirs = [step for step in range(300) if step == 1 or step % every == 0 or (step <= 100 and step % 5 == 0)]
    assert [step for step in range(300) if is_logging_step(step, every)] == theirs
