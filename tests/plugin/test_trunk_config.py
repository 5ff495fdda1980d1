"""Presets and attention axes in the configs of stages 2 and 3."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from vissl_jointssl.checkpoints import StageRecord
from vissl_jointssl.models.attention_axis import build_volume_encoder, volume_encoder_options
from vissl_jointssl.plugin.config import prepare
from vissl_jointssl.plugin.config_faults import ConfigError

# isort: split
from vissl.config import AttrDict

TRUNK = "config.MODEL.TRUNK.JOINT_SSL"
SKIP = "+config.JOINT_SSL.SKIP_STAGE_2=True"
SMALL = "config.DATA.TRAIN.BATCHSIZE_PER_REPLICA=4"


def test_the_default_is_the_paper_and_every_number_is_written_down(
    config_of: Callable[..., AttrDict], stage1_checkpoint: Path
) -> None:
    config = prepare(config_of("stage2_swav", parent=stage1_checkpoint))
    record = StageRecord.from_dict(config.JOINT_SSL.RECORD)
    assert record.volume_encoder == {
        "attention_axis": "slice",
        "downsample": [8, 4, 2, 1],
        "heads": 6,
        "head_width": 64,
        "offset_groups": 6,
        "feed_forward_width": 720,
        "dropout": 0.1,
        "offset_kernel": 5,
        "reference_length": 64,
    }
    assert config.MODEL.TRUNK.JOINT_SSL.ATTENTION_AXIS == "slice"


def test_the_released_preset_is_one_word(config_of: Callable[..., AttrDict], stage1_checkpoint: Path) -> None:
    config = prepare(config_of("stage2_swav", f"{TRUNK}.PRESET=released", parent=stage1_checkpoint))
    record = StageRecord.from_dict(config.JOINT_SSL.RECORD)
    assert (record.levels, record.slice_embedding_width) == (("res2", "res3", "res4", "res5", "res5"), 5888)
    assert record.volume_encoder is not None
    assert (record.volume_encoder["attention_axis"], record.volume_encoder["slices"]) == ("embedding", 64)


def test_the_embedding_axis_has_as_many_channels_as_the_views_have_slices(
    config_of: Callable[..., AttrDict], stage1_checkpoint: Path
) -> None:
    axis, slices = f"{TRUNK}.ATTENTION_AXIS=embedding", "config.DATA.TRAIN.TRANSFORMS.0.num_slices=24"
    config = prepare(config_of("stage2_swav", axis, slices, parent=stage1_checkpoint))
    assert config.MODEL.TRUNK.JOINT_SSL.VOLUME_ENCODER["slices"] == 24
    given = f"+{TRUNK}.VOLUME_ENCODER.slices=16"
    with pytest.raises(ConfigError, match=r"have num_slices 24, but .* reads exactly 16 slices; set num_slices to 16"):
        prepare(config_of("stage2_swav", axis, slices, given, parent=stage1_checkpoint))
    with pytest.raises(ConfigError, match="20 slices cannot be shared evenly by 8 offset groups"):
        prepare(config_of("stage2_swav", axis, slices.replace("24", "20"), parent=stage1_checkpoint))


def test_stage_3_without_f_inter_starts_from_stage_1(
    config_of: Callable[..., AttrDict], stage1_checkpoint: Path
) -> None:
    axis = f"{TRUNK}.ATTENTION_AXIS=none"
    config = prepare(config_of("stage3_swav", axis, SKIP, SMALL, parent=stage1_checkpoint))
    assert config.JOINT_SSL.RECORD["volume_encoder"] == {"attention_axis": "none"}
    with pytest.raises(ConfigError, match=r"no stage 2 to start from; set config\.JOINT_SSL\.SKIP_STAGE_2=True"):
        prepare(config_of("stage3_swav", axis, SMALL, parent=stage1_checkpoint))


def test_stage_2_without_f_inter_makes_no_sense(config_of: Callable[..., AttrDict], stage1_checkpoint: Path) -> None:
    with pytest.raises(ConfigError, match=r"but stage 2 trains f_inter .* go from stage 1 to stage 3"):
        prepare(config_of("stage2_swav", f"{TRUNK}.ATTENTION_AXIS=none", parent=stage1_checkpoint))


def test_no_stage_goes_without_the_slice_projection(
    config_of: Callable[..., AttrDict], stage1_checkpoint: Path
) -> None:
    overrides = [f"{TRUNK}.ATTENTION_AXIS=none", f"+{TRUNK}.SLICE_PROJECTION=False", SKIP, SMALL]
    with pytest.raises(ConfigError, match="SLICE_PROJECTION is False; only evaluations do without it"):
        prepare(config_of("stage3_swav", *overrides, parent=stage1_checkpoint))
    with pytest.raises(ConfigError, match="SLICE_PROJECTION is False, but f_inter reads projected slices"):
        prepare(config_of("stage2_swav", overrides[1], parent=stage1_checkpoint))


@pytest.mark.parametrize(
    ("recorded", "axis", "message"),
    [
        ({"downsample": [8, 4, 2, 1], "heads": 6}, "slice", None),  # as it was written before there was an axis
        ({"attention_axis": "slice", **volume_encoder_options("slice", {})}, "slice", None),
        ({"downsample": [8, 4, 2, 1], "heads": 6}, "embedding", "its volume_encoder is .*'slice'.* use one value"),
    ],
)
def test_stage_3_takes_stage_2_of_the_same_axis_whatever_the_age_of_its_record(
    config_of: Callable[..., AttrDict],
    save_checkpoint: Callable[..., Path],
    tmp_path: Path,
    recorded: dict[str, object],
    axis: str,
    message: str | None,
) -> None:
    record = StageRecord(
        stage=2,
        flavour="swav",
        slice_embedding_width=3904,
        embedding_width=640,
        levels=("res1", "res2", "res3", "res4", "res5"),
        volume_encoder=recorded,
    )
    weights = {f"volume_encoder.{name}": value for name, value in build_volume_encoder().state_dict().items()}
    weights |= {"slice_projection.weight": torch.zeros(640, 3904), "slice_projection.bias": torch.zeros(640)}
    config = config_of(
        "stage3_swav", f"{TRUNK}.ATTENTION_AXIS={axis}", SMALL, parent=save_checkpoint(tmp_path, record, weights)
    )
    if message is None:
        assert prepare(config).JOINT_SSL.RECORD["parent_stage"] == 2
    else:
        with pytest.raises(ConfigError, match=message):
            prepare(config)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (f"{TRUNK}.PRESET=relased", r"PRESET is 'relased'; did you mean released\?"),
        (f"{TRUNK}.ATTENTION_AXIS=slices", r"ATTENTION_AXIS is 'slices'; did you mean slice\?"),
        (f"{TRUNK}.LEVELS=[]", "LEVELS is empty"),
        (f"+{TRUNK}.VOLUME_ENCODER.slices=64", "VOLUME_ENCODER.slices is read by nothing along the axis 'slice'"),
        (f"+{TRUNK}.VOLUME_ENCODER.heads=7", "VOLUME_ENCODER: 7 heads cannot be shared evenly by 6 offset groups"),
        (f"+{TRUNK}.VOLUME_ENCODER.heads=six", r"VOLUME_ENCODER\.heads is 'six' \(str\); expected a value like 6"),
        (f"+{TRUNK}.VOLUME_ENCODER.downsample=8", r"VOLUME_ENCODER\.downsample is 8 \(int\); expected a list"),
        (f"{TRUNK}.EMBEDDING_WIDTH=641", "VOLUME_ENCODER: .* its width must be even, got 641"),
    ],
)
def test_each_fault_of_the_trunk_is_known_before_the_run(
    config_of: Callable[..., AttrDict], stage1_checkpoint: Path, override: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        prepare(config_of("stage2_swav", override, parent=stage1_checkpoint))
