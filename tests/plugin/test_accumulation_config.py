"""`JOINT_SSL.MICRO_BATCHES`: what it sets, and where it is refused."""

from __future__ import annotations

from typing import Any

import pytest

from vissl_jointssl.plugin.accumulation_config import OUR_STEP, VISSLS_STEP, complete_accumulation
from vissl_jointssl.plugin.options import RunOptions, read_options

from vissl.config import AttrDict  # isort: skip - after the plugin has made VISSL importable
from vissl.trainer.train_steps import get_train_step  # isort: skip


def _config(volumes: int = 6, drop_last: bool = True, manual: bool = False, step: str = VISSLS_STEP) -> AttrDict:
    return AttrDict(
        {
            "DATA": {"TRAIN": {"BATCHSIZE_PER_REPLICA": volumes, "DROP_LAST": drop_last}},
            "DISTRIBUTED": {"MANUAL_GRADIENT_REDUCTION": manual},
            "TRAINER": {"TRAIN_STEP_NAME": step},
        }
    )


def _run(**options: Any) -> RunOptions:
    return RunOptions(**{"stage": 3, "micro_batches": 2, **options})


@pytest.mark.parametrize("stage", [2, 3])
def test_it_sets_a_step_that_vissl_knows(stage: int) -> None:
    config = _config()
    assert complete_accumulation(config, _run(stage=stage)) == []
    assert config.TRAINER.TRAIN_STEP_NAME == OUR_STEP
    assert get_train_step(OUR_STEP).__name__ == OUR_STEP
    assert complete_accumulation(config, _run(stage=stage)) == []  # a second time changes nothing


def test_a_batch_taken_whole_keeps_vissls_step() -> None:
    config = _config(volumes=5, drop_last=False)
    assert complete_accumulation(config, _run(micro_batches=1)) == []
    assert config.TRAINER.TRAIN_STEP_NAME == VISSLS_STEP


@pytest.mark.parametrize(
    ("config", "run", "message"),
    [
        ({"volumes": 7}, {}, "MICRO_BATCHES is 2 and DATA.TRAIN.BATCHSIZE_PER_REPLICA is 7: every part must have"),
        ({"drop_last": False}, {}, "every batch must be full; set config.DATA.TRAIN.DROP_LAST=True"),
        ({"manual": True}, {}, "set config.DISTRIBUTED.MANUAL_GRADIENT_REDUCTION=False"),
        ({"step": "my_step"}, {}, "leave config.TRAINER.TRAIN_STEP_NAME as it is"),
        ({}, {"stage": 1}, "only stages 2 and 3 take their batch in parts; leave it out"),
        ({}, {"stage": None, "purpose": "evaluate"}, "only stages 2 and 3 take their batch in parts; leave it out"),
    ],
)
def test_what_cannot_be_done_in_parts_is_said(config: dict[str, Any], run: dict[str, Any], message: str) -> None:
    (fault,) = complete_accumulation(_config(**config), _run(**run))
    assert message in fault


def test_less_than_one_part_is_refused() -> None:
    _, faults = read_options(RunOptions, {"STAGE": 3, "MICRO_BATCHES": 0}, "JOINT_SSL")
    assert faults == ["JOINT_SSL.MICRO_BATCHES is 0; 1 takes the batch whole"]
