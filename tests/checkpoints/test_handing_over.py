from __future__ import annotations

import dataclasses
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from vissl_jointssl.checkpoints import CheckpointError, StageRecord, hand_over, read_checkpoint

SIZES: dict[str, Any] = {
    "flavour": "swav",
    "levels": ("res1", "res5"),
    "slice_embedding_width": 6,
    "embedding_width": 4,
}
NAMES = (  # of the trunk that is about to start
    "_feature_blocks.conv1.weight",
    "_feature_blocks.bn1.num_batches_tracked",
    "slice_projection.weight",
    "volume_encoder.blocks.0.weight",
    "mask_token",
)
STAGE_1 = StageRecord(stage=1, flavour="swav")
STAGE_1_TRUNK = {"_feature_blocks.conv1.weight": torch.ones(2)}


def test_each_stage_accepts_the_one_before_it(write_checkpoint: Callable[..., Path], record: StageRecord) -> None:
    hand_over(
        read_checkpoint(write_checkpoint(record=STAGE_1, trunk=STAGE_1_TRUNK)), StageRecord(stage=2, **SIZES), NAMES
    )
    hand_over(read_checkpoint(write_checkpoint(record=record)), StageRecord(stage=3, **SIZES), NAMES)


def test_stage_3_takes_stage_1_only_when_stage_2_is_skipped_on_purpose(write_checkpoint: Callable[..., Path]) -> None:
    parent = read_checkpoint(write_checkpoint(record=STAGE_1, trunk=STAGE_1_TRUNK))
    hand_over(parent, StageRecord(stage=3, **SIZES), NAMES, skip_stage_2=True)
    with pytest.raises(CheckpointError, match=r"from stage 1, needed is stage 2; .* ablation that skips stage 2"):
        hand_over(parent, StageRecord(stage=3, **SIZES), NAMES)


def test_skipping_stage_2_with_a_stage_2_parent_is_a_contradiction(
    write_checkpoint: Callable[..., Path], record: StageRecord
) -> None:
    parent = read_checkpoint(write_checkpoint(record=record))
    with pytest.raises(CheckpointError, match="from stage 2, needed is stage 1; pass the last checkpoint of stage 1"):
        hand_over(parent, StageRecord(stage=3, **SIZES), NAMES, skip_stage_2=True)
    with pytest.raises(CheckpointError, match="skip_stage_2 was given to stage 2"):
        hand_over(parent, StageRecord(stage=2, **SIZES), NAMES, skip_stage_2=True)


@pytest.mark.parametrize("stage", [1, 4])
def test_only_stages_2_and_3_have_a_parent(
    write_checkpoint: Callable[..., Path], record: StageRecord, stage: int
) -> None:
    with pytest.raises(CheckpointError, match=f"stage {stage} starts from no parent"):
        hand_over(read_checkpoint(write_checkpoint(record=record)), StageRecord(stage=stage, **SIZES), NAMES)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"embedding_width": 8}, r"its embedding_width is 8, this stage's is 4"),
        ({"slice_embedding_width": 9}, r"its slice_embedding_width is 9, this stage's is 6"),
        ({"levels": ("res5", "res1")}, r"its levels is \('res5', 'res1'\), this stage's is \('res1', 'res5'\)"),
        ({"flavour": "deepclusterv2"}, r"its flavour is deepclusterv2, this stage's is swav"),
        (
            {"volume_encoder": {"downsample": [1]}},
            r"its volume_encoder is \{'downsample': \[1\]\}, this stage's is None",
        ),
        ({"embedding_width": None}, r"its embedding_width is None, this stage's is 4"),
    ],
)
def test_each_disagreement_names_the_file_and_both_values(
    write_checkpoint: Callable[..., Path], record: StageRecord, change: dict[str, Any], message: str
) -> None:
    path = write_checkpoint(record=dataclasses.replace(record, **change))
    with pytest.raises(CheckpointError, match=message) as caught:
        hand_over(read_checkpoint(path), StageRecord(stage=3, **SIZES), NAMES)
    assert str(path) in str(caught.value)


def test_every_disagreement_is_reported_at_once(write_checkpoint: Callable[..., Path], record: StageRecord) -> None:
    path = write_checkpoint(record=dataclasses.replace(record, stage=3, embedding_width=8, levels=("res5",)))
    with pytest.raises(CheckpointError) as caught:
        hand_over(read_checkpoint(path), StageRecord(stage=3, **SIZES), NAMES)
    assert str(caught.value).count("\n  - ") == 3


def test_a_parent_of_the_other_flavour_can_be_accepted_on_purpose(
    write_checkpoint: Callable[..., Path], record: StageRecord
) -> None:
    parent = read_checkpoint(write_checkpoint(record=dataclasses.replace(record, flavour="deepclusterv2")))
    hand_over(parent, StageRecord(stage=3, **SIZES), NAMES, mixed_flavours=True)


def test_a_parent_without_record_needs_permission_and_its_weights_are_still_checked(
    write_checkpoint: Callable[..., Path],
) -> None:
    parent = read_checkpoint(write_checkpoint())
    with pytest.raises(CheckpointError, match=r"no stage record.*allow an unrecorded parent"):
        hand_over(parent, StageRecord(stage=3, **SIZES), NAMES)
    hand_over(parent, StageRecord(stage=3, **SIZES), NAMES, allow_unrecorded=True)
    with pytest.raises(CheckpointError, match=r"slice_projection\.weight is \(4, 6\), this stage's is .* \(5, 6\)"):
        hand_over(parent, StageRecord(stage=3, **{**SIZES, "embedding_width": 5}), NAMES, allow_unrecorded=True)


def test_a_record_cannot_stand_in_for_weights(write_checkpoint: Callable[..., Path], record: StageRecord) -> None:
    parent = read_checkpoint(write_checkpoint(record=record, trunk={"encoder.weight": torch.ones(1)}))
    with pytest.raises(CheckpointError, match=r"no weights called _feature_blocks\.\*") as caught:
        hand_over(parent, StageRecord(stage=3, **SIZES), NAMES)
    assert "volume_encoder.*" in str(caught.value)


PARTS = {"_feature_blocks.layer1.weight": 1, "slice_projection.bias": 2, "volume_encoder.blocks.1.weight": 2}


@pytest.mark.parametrize("lost", PARTS)
def test_a_parent_with_a_part_of_a_network_is_refused_with_what_it_lacks(
    write_checkpoint: Callable[..., Path], record: StageRecord, lost: str
) -> None:
    parent, prefix = read_checkpoint(write_checkpoint(record=record)), lost.partition(".")[0]
    words = rf"lacks 1 of the 2 weights called {prefix}\.\*, first {re.escape(lost)}; pass a whole checkpoint of"
    with pytest.raises(CheckpointError, match=words):
        hand_over(parent, StageRecord(stage=3, **SIZES), [*NAMES, lost])


@pytest.mark.parametrize("lost", PARTS)
def test_only_what_the_parent_had_to_train_must_be_in_it(write_checkpoint: Callable[..., Path], lost: str) -> None:
    parent = read_checkpoint(write_checkpoint(record=STAGE_1, trunk=STAGE_1_TRUNK))
    for stage, skip in ((2, False), (3, True)):
        child = StageRecord(stage=stage, **SIZES)
        if PARTS[lost] == 1:
            with pytest.raises(CheckpointError, match=r"lacks 1 of the 2 weights called _feature_blocks\.\*"):
                hand_over(parent, child, [*NAMES, lost], skip_stage_2=skip)
        else:
            hand_over(parent, child, [*NAMES, lost], skip_stage_2=skip)


def test_an_unrecorded_parent_is_held_to_its_weights_too(write_checkpoint: Callable[..., Path]) -> None:
    parent = read_checkpoint(write_checkpoint(trunk=STAGE_1_TRUNK))
    with pytest.raises(CheckpointError, match=r"no weights called slice_projection\.\*; pass the last .* of stage 2"):
        hand_over(parent, StageRecord(stage=3, **SIZES), NAMES, allow_unrecorded=True)


def test_an_unfinished_parent_is_accepted_with_a_warning(
    write_checkpoint: Callable[..., Path], record: StageRecord, caplog: pytest.LogCaptureFixture
) -> None:
    parent = read_checkpoint(write_checkpoint("model_phase5.torch", record=record))
    with caplog.at_level(logging.WARNING):
        hand_over(parent, StageRecord(stage=3, **SIZES), NAMES)
    assert "model_phase5.torch is not the final checkpoint" in caplog.text
