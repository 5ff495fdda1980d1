"""An evaluation takes any stage's checkpoint: its trunk, its widths and its classes are filled in."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from vissl_jointssl.checkpoints import StageRecord
from vissl_jointssl.models.attention_axis import build_volume_encoder
from vissl_jointssl.plugin.config import prepare
from vissl_jointssl.plugin.config_faults import ConfigError

# isort: split
from vissl.config import AttrDict

BOTH = ["TRAIN", "TEST"]
STAGE_3 = StageRecord(
    stage=3,
    flavour="swav",
    slice_embedding_width=2048,
    embedding_width=16,
    levels=("res5",),
    volume_encoder={"downsample": [2, 1], "reference_length": 8},
)


def encoder_weights(axis: str = "slice", **options: object) -> dict[str, torch.Tensor]:
    """Those that stage 2 adds to f_intra, for D = 16 and E = 2048."""
    weights = build_volume_encoder(axis, width=16, **options).state_dict()
    projection = {"slice_projection.weight": torch.zeros(16, 2048), "slice_projection.bias": torch.zeros(16)}
    return {f"volume_encoder.{name}": value for name, value in weights.items()} | projection


def test_slices_are_classified_from_stage_1_by_as_many_classes_as_there_are(
    config_of: Callable[..., AttrDict], stage1_checkpoint: Path
) -> None:
    batch = "config.DATA.TRAIN.BATCHSIZE_PER_REPLICA=4"
    config = prepare(config_of("linear_slice", batch, parent=stage1_checkpoint, splits=BOTH))
    assert config.MODEL.HEAD.PARAMS[0][1]["dims"] == [2048, 2]


@pytest.mark.parametrize("recorded", [True, False])
def test_volumes_of_a_checkpoint_of_f_intra_alone_are_the_mean_multi_level_embedding(
    config_of: Callable[..., AttrDict],
    save_checkpoint: Callable[..., Path],
    tmp_path: Path,
    recorded: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    parent = save_checkpoint(tmp_path, StageRecord(stage=1, flavour="swav") if recorded else None)
    with caplog.at_level(logging.INFO):
        config = prepare(config_of("linear_volume", parent=parent, splits=BOTH))
    section = config.MODEL.TRUNK.JOINT_SSL
    assert (section.ATTENTION_AXIS, section.SLICE_PROJECTION) == ("none", False)
    assert config.MODEL.HEAD.PARAMS[0][1] == {"in_channels": 3904, "dims": [3904, 2]}
    said = [message for message in caplog.messages if "has no f_inter" in message]
    assert len(said) == 1
    assert ("stage 1" if recorded else "an unrecorded run") in said[0]
    assert "E = 3904" in said[0]


def test_other_levels_of_stage_1_can_be_asked_for(config_of: Callable[..., AttrDict], stage1_checkpoint: Path) -> None:
    levels = "+config.MODEL.TRUNK.JOINT_SSL.LEVELS=[res4,res5]"
    config = prepare(config_of("linear_volume", levels, parent=stage1_checkpoint, splits=BOTH))
    assert config.MODEL.HEAD.PARAMS[0][1] == {"in_channels": 3072, "dims": [3072, 2]}


@pytest.mark.parametrize("stage", [2, 3])
def test_the_trunk_of_stages_2_and_3_is_the_records_whatever_its_age(
    config_of: Callable[..., AttrDict], save_checkpoint: Callable[..., Path], tmp_path: Path, stage: int
) -> None:
    weights = encoder_weights(downsample=[2, 1], reference_length=8)
    parent = save_checkpoint(tmp_path, StageRecord(**{**vars(STAGE_3), "stage": stage}), weights)
    config = prepare(config_of("linear_volume", parent=parent, splits=BOTH))
    section = config.MODEL.TRUNK.JOINT_SSL
    assert (section.LEVELS, section.EMBEDDING_WIDTH, section.ATTENTION_AXIS) == (["res5"], 16, "slice")
    rebuilt = build_volume_encoder(section.ATTENTION_AXIS, width=16, **section.VOLUME_ENCODER).state_dict()
    assert {name: value.shape for name, value in rebuilt.items()} == {
        name.removeprefix("volume_encoder."): value.shape
        for name, value in weights.items()
        if not name.startswith("slice_projection.")
    }
    assert config.MODEL.HEAD.PARAMS[0][1] == {"in_channels": 16, "dims": [16, 2]}


@pytest.mark.parametrize(
    "name", ["linear_slice", "extract_slices", "extract_volumes", "svm_slice", "svm_volume", "knn_slice", "knn_volume"]
)
@pytest.mark.parametrize("stage", [1, 3])
def test_every_evaluation_takes_stages_with_and_without_f_inter(
    config_of: Callable[..., AttrDict],
    save_checkpoint: Callable[..., Path],
    tmp_path: Path,
    name: str,
    stage: int,
) -> None:
    record = STAGE_3 if stage == 3 else StageRecord(stage=1, flavour="swav")
    weights = encoder_weights(downsample=[2, 1], reference_length=8) if stage == 3 else {}
    parent = save_checkpoint(tmp_path, record, weights)
    config = prepare(config_of(name, "config.DATA.TRAIN.BATCHSIZE_PER_REPLICA=2", parent=parent, splits=BOTH))
    trunk = "joint_trunk" if "volume" in name else "resnet"
    assert trunk == config.MODEL.TRUNK.NAME


def test_the_embedding_axis_needs_views_of_its_number_of_slices(
    config_of: Callable[..., AttrDict], save_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    record = StageRecord(
        **{**vars(STAGE_3), "volume_encoder": {"attention_axis": "embedding", "slices": 8, "blocks": 1}}
    )
    parent = save_checkpoint(tmp_path, record, encoder_weights("embedding", slices=8, blocks=1))
    message = r"TEST\.TRANSFORMS have num_slices 64, but .* reads exactly 8 slices; set num_slices to 8"
    with pytest.raises(ConfigError, match=message):
        prepare(config_of("linear_volume", parent=parent, splits=BOTH))
    slices = [f"config.DATA.{split}.TRANSFORMS.0.num_slices=8" for split in BOTH]
    config = prepare(config_of("linear_volume", *slices, parent=parent, splits=BOTH))
    assert config.MODEL.TRUNK.JOINT_SSL.ATTENTION_AXIS == "embedding"
    assert config.MODEL.TRUNK.JOINT_SSL.VOLUME_ENCODER["slices"] == 8


def test_a_run_without_f_inter_keeps_its_projection(
    config_of: Callable[..., AttrDict], save_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    record = StageRecord(**{**vars(STAGE_3), "volume_encoder": {"attention_axis": "none"}})
    parent = save_checkpoint(tmp_path, record, encoder_weights("none"))
    config = prepare(config_of("extract_volumes", parent=parent, splits=BOTH))
    section = config.MODEL.TRUNK.JOINT_SSL
    assert (section.ATTENTION_AXIS, section.EMBEDDING_WIDTH) == ("none", 16)
    assert "SLICE_PROJECTION" not in section


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, r"no weights called volume_encoder\.\*, of which its record speaks; give another checkpoint"),
        (
            {"volume_encoder": {"attention_axis": "diagonal"}, "version": "9.9"},
            r"describes no f_inter of this version \(unknown attention axis 'diagonal'.*\); .* by version 9\.9",
        ),
    ],
)
def test_a_record_that_does_not_fit_is_said(
    config_of: Callable[..., AttrDict],
    save_checkpoint: Callable[..., Path],
    tmp_path: Path,
    changes: dict[str, object],
    message: str,
) -> None:
    parent = save_checkpoint(tmp_path, StageRecord(**{**vars(STAGE_3), **changes}))
    with pytest.raises(ConfigError, match=message):
        prepare(config_of("linear_volume", parent=parent, splits=BOTH))


@pytest.mark.parametrize("part", ["slice_projection.bias", "volume_encoder."])
def test_a_part_of_f_inter_that_is_absent_is_no_random_one(
    config_of: Callable[..., AttrDict], save_checkpoint: Callable[..., Path], tmp_path: Path, part: str
) -> None:
    weights = encoder_weights(downsample=[2, 1], reference_length=8)
    del weights[next(name for name in weights if name.startswith(part))]
    parent = save_checkpoint(tmp_path, STAGE_3, weights)
    with pytest.raises(
        ConfigError, match=r"lacks 1 of the \d+ weights of joint_trunk, first .*; give a whole checkpoint"
    ):
        prepare(config_of("linear_volume", parent=parent, splits=BOTH))


@pytest.mark.parametrize("name", ["linear_slice", "linear_volume"])
def test_a_part_of_f_intra_that_is_absent_is_no_random_one(
    config_of: Callable[..., AttrDict], stage1_checkpoint: Path, tmp_path: Path, name: str
) -> None:
    content = torch.load(stage1_checkpoint, weights_only=True)
    del content["classy_state_dict"]["base_model"]["model"]["trunk"]["_feature_blocks.layer4.2.bn3.running_var"]
    path = tmp_path / "model_final_checkpoint_phase0.torch"
    torch.save(content, path)
    batch = "config.DATA.TRAIN.BATCHSIZE_PER_REPLICA=4"
    with pytest.raises(ConfigError, match=r"lacks 1 of the 318 weights of .*, first _feature_blocks\.layer4\.2\.bn3"):
        prepare(config_of(name, batch, parent=path, splits=BOTH))


def test_a_trunk_section_beside_a_recorded_one_is_refused(
    config_of: Callable[..., AttrDict], save_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    parent = save_checkpoint(tmp_path, STAGE_3, encoder_weights(downsample=[2, 1], reference_length=8))
    axis = "+config.MODEL.TRUNK.JOINT_SSL.ATTENTION_AXIS=embedding"
    with pytest.raises(ConfigError, match=r"JOINT_SSL is given, but an evaluation reads it from .*; remove it"):
        prepare(config_of("linear_volume", axis, parent=parent, splits=BOTH))


def test_a_classifier_of_another_width_is_refused(config_of: Callable[..., AttrDict], stage1_checkpoint: Path) -> None:
    width = "config.MODEL.HEAD.PARAMS=[[eval_mlp,{in_channels:640,dims:[640,null]}]]"
    with pytest.raises(ConfigError, match=r"eval_mlp reads 640 and 640 numbers, but .* embeddings have 3904"):
        prepare(config_of("linear_volume", width, parent=stage1_checkpoint, splits=BOTH))


def test_a_checkpoint_of_something_else_is_refused(config_of: Callable[..., AttrDict], tmp_path: Path) -> None:
    model = {"model": {"trunk": {"blocks.0.weight": torch.zeros(1)}, "heads": {}}, "meta": {}}
    path = tmp_path / "model_final_checkpoint_phase0.torch"
    torch.save({"classy_state_dict": {"base_model": model, "hooks": {}}, "iteration": 1}, path)
    for name in ("linear_slice", "linear_volume"):
        with pytest.raises(ConfigError, match=r"no weights called _feature_blocks\.\*, which .* needs; give the"):
            prepare(config_of(name, parent=path, splits=BOTH))
