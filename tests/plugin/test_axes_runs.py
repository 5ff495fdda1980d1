"""Stages 2 and 3 for real on two ranks, along the other axes: a weight without a gradient would stop DDP."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from vissl_jointssl.checkpoints import Checkpoint, newest_checkpoint, read_checkpoint

Stage = Callable[..., Checkpoint]
TRUNK = "config.MODEL.TRUNK.JOINT_SSL"
STAGE_3 = [
    "config.MODEL.HEAD.PARAMS=[[swav_head,{dims:[640],use_bn:False,num_clusters:[5]}]]",
    "config.MODEL.TEMP_FROZEN_PARAMS_ITER_MAP=[[module.heads.0.prototypes0.weight,1]]",
]


@pytest.fixture
def stage(engine: Callable[..., subprocess.CompletedProcess[str]], tiny_manifest: Path, tmp_path: Path) -> Stage:
    """Train one stage for an epoch on two ranks and read its last checkpoint."""

    def train(number: int, parent: Path, *overrides: str) -> Checkpoint:
        folder = tmp_path / f"stage{number}"
        result = engine(
            f"config=jointssl/stage{number}_swav",
            f"config.DATA.TRAIN.DATA_PATHS=['{tiny_manifest}']",
            f"config.MODEL.WEIGHTS_INIT.PARAMS_FILE='{parent}'",
            f"config.CHECKPOINT.DIR='{folder}'",
            "config.MACHINE.DEVICE=cpu",
            "config.DISTRIBUTED.NUM_PROC_PER_NODE=2",
            "config.OPTIMIZER.num_epochs=1",
            "config.LOG_FREQUENCY=1",
            "config.DATA.NUM_DATALOADER_WORKERS=1",
            "config.DATA.TRAIN.BATCHSIZE_PER_REPLICA=2",
            "config.DATA.TRAIN.TRANSFORMS.0.size=[32,32]",
            "config.DATA.TRAIN.TRANSFORMS.0.num_slices=8",
            *overrides,
        )
        assert result.returncode == 0, result.stdout + result.stderr
        losses = [json.loads(line)["loss"] for line in (folder / "stdout.json").open()]
        assert len(losses) == 2
        assert np.isfinite(losses).all()
        path = newest_checkpoint(folder)
        assert path is not None
        return read_checkpoint(path)

    return train


@pytest.mark.slow
def test_the_released_preset_goes_through_stages_2_and_3(stage: Stage, stage1_checkpoint: Path) -> None:
    two = stage(2, stage1_checkpoint, f"{TRUNK}.PRESET=released")
    three = stage(3, two.path, f"{TRUNK}.PRESET=released", *STAGE_3)
    for found in (two, three):
        assert found.record is not None
        assert found.record.slice_embedding_width == 5888
        assert found.record.volume_encoder is not None
        assert (found.record.volume_encoder["attention_axis"], found.record.volume_encoder["slices"]) == (
            "embedding",
            8,
        )
    name = "volume_encoder.blocks.3.attention.position_bias.network.0.weight"
    assert two.trunk[name].shape == (2, 1)
    assert not two.trunk[name].equal(three.trunk[name])


@pytest.mark.slow
def test_stage_3_without_f_inter_goes_on_from_stage_1(stage: Stage, stage1_checkpoint: Path) -> None:
    without = [f"{TRUNK}.ATTENTION_AXIS=none", "+config.JOINT_SSL.SKIP_STAGE_2=True"]
    three = stage(3, stage1_checkpoint, *without, *STAGE_3)
    assert {name.split(".")[0] for name in three.trunk} == {"_feature_blocks", "slice_projection"}
    assert three.record is not None
    assert three.record.volume_encoder == {"attention_axis": "none"}
