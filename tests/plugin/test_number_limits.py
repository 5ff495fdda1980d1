"""How many steps may be skipped, and the hooks that a stage runs with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vissl_jointssl.plugin.config import prepare
from vissl_jointssl.plugin.config_faults import ConfigError
from vissl_jointssl.plugin.hooks import hook_generator
from vissl_jointssl.plugin.number_limits import NumberOptions, beyond_limits, within_window
from vissl_jointssl.plugin.options import read_options


@pytest.mark.parametrize(
    ("in_a_row", "recent", "word"),
    [(3, 10, None), (4, 4, "3 steps in a row"), (1, 11, "10 of the last 1000 steps"), (4, 11, "3 steps in a row")],
)
def test_three_in_a_row_and_ten_of_a_thousand_may_be_skipped(in_a_row: int, recent: int, word: str | None) -> None:
    said = beyond_limits(in_a_row, recent, NumberOptions())
    assert said is None if word is None else word in str(said)


def test_nothing_may_be_skipped_where_the_limit_is_0() -> None:
    assert "0 steps in a row" in str(beyond_limits(1, 1, NumberOptions(skip=0)))
    assert "0 of the last 1000" in str(beyond_limits(1, 1, NumberOptions(skip_per_1000=0)))


def test_the_window_is_of_the_999_steps_before_and_this_one() -> None:
    assert within_window([4, 5, 6, 1003], 1005) == [6, 1003]


@pytest.mark.parametrize(
    ("section", "fault"),
    [
        ({"SKP": 2}, "NUMBERS.SKP is read by nothing; did you mean SKIP?"),
        ({"SKIP": -1}, "NUMBERS.SKIP is -1; it must be at least 0, which stops at once"),
        ({"SKIP_PER_1000": -1}, "NUMBERS.SKIP_PER_1000 is -1; it must be at least 0, which stops at once"),
        ({"SKIP": 0.5}, "NUMBERS.SKIP is 0.5 (float); expected a value like 3"),
    ],
)
def test_a_wrong_option_is_named(section: dict[str, Any], fault: str) -> None:
    _, faults = read_options(NumberOptions, section, "JOINT_SSL.NUMBERS")
    assert faults == [f"JOINT_SSL.{fault}"]


def test_a_wrong_option_is_found_before_the_run(config_of: Callable[..., Any], stage1_checkpoint: Path) -> None:
    cfg = config_of("stage2_swav", "+config.JOINT_SSL.NUMBERS={SKIP: -3}", parent=stage1_checkpoint)
    with pytest.raises(ConfigError, match=r"JOINT_SSL\.NUMBERS\.SKIP is -3"):
        prepare(cfg)


@pytest.mark.parametrize("name", ["stage1_swav", "stage1_deepclusterv2", "stage2_swav", "stage3_swav"])
def test_a_stage_watches_its_numbers_before_all_else_and_no_hook_stops_one_rank_alone(
    name: str, config_of: Callable[..., Any], stage1_checkpoint: Path
) -> None:
    parent = {} if name.startswith("stage1") else {"parent": stage1_checkpoint}
    skip = ["+config.JOINT_SSL.SKIP_STAGE_2=True"] if name.startswith("stage3") else []
    small = ["config.DATA.TRAIN.BATCHSIZE_PER_REPLICA=4"]
    if name == "stage1_deepclusterv2":
        small.append("config.LOSS.deepclusterv2_loss.num_clusters=[5]")
    cfg = prepare(config_of(name, "+config.JOINT_SSL.NUMBERS={SKIP: 1}", *skip, *small, **parent))
    names = [type(hook).__name__ for hook in hook_generator(cfg)]
    assert names[:2] == ["StopOnRequestHook", "FiniteNumbersHook"]  # the first changes no number
    assert "LogLossMetricsCheckpointHook" in names
    assert not {"CheckNanLossHook", "CheckNanModelOutputHook"} & set(names)
    assert hook_generator(cfg)[1]._options == NumberOptions(skip=1)


def test_a_baseline_keeps_vissls_checks(config_of: Callable[..., Any]) -> None:
    cfg = config_of("stage1_swav", "config.JOINT_SSL.STAGE=null", "+config.JOINT_SSL.PURPOSE=baseline")
    names = [type(hook).__name__ for hook in hook_generator(cfg)]
    assert "FiniteNumbersHook" not in names
    assert {"CheckNanLossHook", "CheckNanModelOutputHook"} <= set(names)
