"""What is wrong with a config is said before anything runs, all of it, with its key and the next step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from vissl_jointssl.checkpoints import StageRecord
from vissl_jointssl.manifest import read_manifest, write_manifest
from vissl_jointssl.plugin.config import prepare
from vissl_jointssl.plugin.config_faults import ConfigError, refuse_missing_values
from vissl_jointssl.plugin.launch import compose

from vissl.config import AttrDict  # isort: skip - after the plugin has made VISSL importable


def test_a_stock_config_passes_untouched() -> None:
    config = AttrDict({"LOSS": {"name": "simclr_info_nce_loss"}, "ANYTHING": 1})
    assert prepare(config) is config


def test_stage_1_is_stock_swav_and_carries_a_record(config_of: Callable[..., AttrDict], tiny_manifest: Path) -> None:
    config = prepare(config_of("stage1_swav"))
    assert (config.MODEL.TRUNK.NAME, config.LOSS.name) == ("resnet", "swav_loss")
    record = StageRecord.from_dict(config.JOINT_SSL.RECORD)
    assert (record.stage, record.parent) == (1, None)
    assert record.manifest == read_manifest(tiny_manifest).fingerprint()


def test_stage_2_takes_stage_1_and_records_its_sizes(
    config_of: Callable[..., AttrDict], stage1_checkpoint: Path
) -> None:
    config = prepare(config_of("stage2_swav", parent=stage1_checkpoint))
    record = StageRecord.from_dict(config.JOINT_SSL.RECORD)
    assert (record.stage, record.parent_stage) == (2, 1)
    assert (record.slice_embedding_width, record.embedding_width) == (3904, 640)
    assert config.MODEL.TRUNK.JOINT_SSL.STAGE == 2


def test_the_papers_numbers_are_in_the_configs(config_of: Callable[..., AttrDict], stage1_checkpoint: Path) -> None:
    one, two = config_of("stage1_swav"), config_of("stage2_swav", parent=stage1_checkpoint)
    three = config_of("stage3_swav", parent=stage1_checkpoint)
    assert [config.OPTIMIZER.num_epochs for config in (one, two, three)] == [100, 100, 100]
    assert (two.DATA.TRAIN.BATCHSIZE_PER_REPLICA * 4, three.DATA.TRAIN.BATCHSIZE_PER_REPLICA * 4) == (12, 24)
    loss = three.LOSS.inter_swav_loss
    assert (loss.temperature, loss.epsilon, loss.num_iters, loss.queue_length) == (0.1, 0.05, 3, 0)
    assert three.MODEL.HEAD.PARAMS[0][1]["num_clusters"] == [3000]
    assert three.MODEL.TEMP_FROZEN_PARAMS_ITER_MAP[0][1] == 313
    assert (three.MODEL.GRAD_CLIP.MAX_NORM, three.OPTIMIZER.momentum, three.OPTIMIZER.weight_decay) == (2.0, 0.9, 1e-6)
    assert three.OPTIMIZER.use_larc
    warm_up, decay = three.OPTIMIZER.param_schedulers.lr.schedulers
    assert (warm_up["end_value"], decay["end_value"]) == (0.01, 0.0)
    assert three.OPTIMIZER.param_schedulers.lr.lengths == [0.1, 0.9]


def test_stage_3_without_a_checkpoint_names_the_key_before_anything_is_made(tmp_path: Path) -> None:
    composed = compose(["config=jointssl/stage3_swav", f"config.CHECKPOINT.DIR='{tmp_path}'"])
    with pytest.raises(
        ConfigError, match=r"PARAMS_FILE is not set; give the last checkpoint of the stage before"
    ) as caught:
        refuse_missing_values(composed)
    assert any("config.DATA.TRAIN.DATA_PATHS is not set" in fault for fault in caught.value.faults)
    assert not list(tmp_path.iterdir())


def test_stage_3_refuses_stage_1s_checkpoint(config_of: Callable[..., AttrDict], stage1_checkpoint: Path) -> None:
    with pytest.raises(ConfigError, match=r"comes from stage 1, needed is stage 2") as caught:
        prepare(config_of("stage3_swav", parent=stage1_checkpoint))
    assert str(stage1_checkpoint) in str(caught.value)


def test_stage_3_takes_stage_1_when_stage_2_is_skipped_on_purpose(
    config_of: Callable[..., AttrDict], stage1_checkpoint: Path
) -> None:
    config = prepare(
        config_of(
            "stage3_swav",
            "+config.JOINT_SSL.SKIP_STAGE_2=True",
            "config.DATA.TRAIN.BATCHSIZE_PER_REPLICA=4",
            parent=stage1_checkpoint,
        )
    )
    assert config.JOINT_SSL.RECORD["parent_stage"] == 1
    loss = config.LOSS.inter_swav_loss
    assert (loss.num_views, loss.embedding_width) == (2, 640)


def test_a_checkpoint_without_record_needs_permission(
    config_of: Callable[..., AttrDict], save_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    unrecorded = save_checkpoint(tmp_path, record=None)
    with pytest.raises(ConfigError, match="no stage record"):
        prepare(config_of("stage2_swav", parent=unrecorded))
    prepare(config_of("stage2_swav", "+config.JOINT_SSL.ALLOW_UNRECORDED_PARENT=True", parent=unrecorded))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("+config.DATA.TRIAN.X=1", r"config\.DATA\.TRIAN is read by nothing; did you mean TRAIN\?"),
        ("+config.JOINT_SSL.STAGES=2", r"JOINT_SSL\.STAGES is read by nothing; did you mean STAGE\?"),
        ("+config.MODEL.TRUNK.JOINT_SSL.LEVEL=[res5]", r"LEVEL is read by nothing; did you mean LEVELS\?"),
        ("+config.DATA.TRAIN.SPLIT=[train]", r"DATA\.TRAIN\.SPLIT is read by nothing; did you mean SPLITS\?"),
        ("config.MODEL.TRUNK.JOINT_SSL.MASK_RATIO=1.5", r"MASK_RATIO is 1\.5; it must lie between 0 and 1"),
        ("config.MODEL.TRUNK.JOINT_SSL.MASK_RATIO=some", r"MASK_RATIO is 'some' \(str\); expected a value like 0\.1"),
        ("config.MODEL.TRUNK.JOINT_SSL.LEVELS=[res6]", r"LEVELS names 'res6'; did you mean res"),
        ("config.MODEL.TRUNK.NAME=resnet", r"MODEL\.TRUNK\.NAME is 'resnet'; stage 2 trains 'joint_trunk'"),
        ("config.LOSS.name=swav_loss_typo", r"LOSS\.name is 'swav_loss_typo'; stage 2 of flavour swav trains"),
        ("config.DATA.TRAIN.BATCHSIZE_PER_REPLICA=9", r"one step takes 9 samples and .* has 8"),
        ("config.DATA.TRAIN.SPLITS=[val]", r"no volumes in the splits \['val'\]"),
        (
            "+config.LOSS.inter_swav_loss.epsilno=3",
            r"inter_swav_loss\.epsilno is read by nothing; did you mean epsilon\?",
        ),
        ("+config.DATA.TRAIN.TRANSFORMS.0.rotatoin=3", r"'rotatoin' is read by nothing; did you mean rotation\?"),
    ],
)
def test_each_fault_names_its_key(
    config_of: Callable[..., AttrDict], stage1_checkpoint: Path, override: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        prepare(config_of("stage2_swav", override, parent=stage1_checkpoint))


def test_a_parent_of_the_other_flavour_is_taken_only_on_request(
    config_of: Callable[..., AttrDict], stage1_checkpoint: Path
) -> None:
    with pytest.raises(ConfigError, match=r"flavour is swav, this stage's is deepclusterv2.*MIXED_FLAVOURS=True"):
        prepare(config_of("stage2_deepclusterv2", parent=stage1_checkpoint))
    mixed = config_of("stage2_deepclusterv2", "+config.JOINT_SSL.MIXED_FLAVOURS=True", parent=stage1_checkpoint)
    record = StageRecord.from_dict(prepare(mixed).JOINT_SSL.RECORD)
    assert (record.flavour, record.parent_stage) == ("deepclusterv2", 1)


def test_all_faults_are_reported_at_once(config_of: Callable[..., AttrDict], tmp_path: Path) -> None:
    config = config_of(
        "stage2_swav",
        "+config.MODEL.TRUNK.DEPHT=50",
        "config.MODEL.TRUNK.JOINT_SSL.EMBEDDING_WIDTH=0",
        parent=tmp_path / "absent.torch",
        manifest=tmp_path / "absent.csv",
    )
    with pytest.raises(ConfigError) as caught:
        prepare(config)
    text = str(caught.value)
    for part in ("DEPHT", "EMBEDDING_WIDTH is 0", "absent.torch", "absent.csv"):
        assert part in text


def test_a_truncated_or_nan_volume_stops_the_run_before_its_first_step(
    config_of: Callable[..., AttrDict], tiny_manifest: Path, tmp_path: Path
) -> None:
    import dataclasses
    import shutil

    folder = tmp_path / "damaged"
    shutil.copytree(tiny_manifest.parent, folder)
    whole = (folder / "volume3.npy").read_bytes()
    (folder / "volume3.npy").write_bytes(whole[: len(whole) // 2])
    nan = np.full((5, 32, 32), np.nan, dtype=np.float32)
    np.save(folder / "volume4.npy", nan)
    entries = [
        dataclasses.replace(entry, shape=nan.shape, dtype="float32") if entry.id == "volume4" else entry
        for entry in read_manifest(folder / "manifest.csv").entries
    ]
    write_manifest(folder / "manifest.csv", entries)
    with pytest.raises(ConfigError) as caught:
        prepare(config_of("stage1_swav", manifest=folder / "manifest.csv"))
    text = str(caught.value)
    assert "volume3.npy" in text
    assert "volume4.npy" in text
    assert "NaN" in text
