"""Stages 2 and 3 with their batch in parts, through VISSL's engine on two gloo ranks."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from vissl_jointssl.checkpoints import newest_checkpoint, read_checkpoint

TWO_RANKS = ["config.MACHINE.DEVICE=cpu", "config.DISTRIBUTED.BACKEND=gloo", "config.DISTRIBUTED.NUM_PROC_PER_NODE=2"]
TOY = [
    "config.DATA.PIN_MEMORY=False",
    "config.DATA.NUM_DATALOADER_WORKERS=0",
    "config.DATA.TRAIN.BATCHSIZE_PER_REPLICA=4",
    "config.DATA.TRAIN.TRANSFORMS.0.size=[32,32]",
    "config.DATA.TRAIN.TRANSFORMS.0.num_slices=4",
    "config.OPTIMIZER.num_epochs=2",
    "config.LOG_FREQUENCY=1",
    "+config.JOINT_SSL.MICRO_BATCHES=2",
]
OVERRIDES = {
    2: [],
    3: [
        "+config.JOINT_SSL.SKIP_STAGE_2=True",
        "config.MODEL.HEAD.PARAMS=[[swav_head,{dims:[640,32,16],use_bn:True,num_clusters:[5]}]]",
        "config.MODEL.TEMP_FROZEN_PARAMS_ITER_MAP=[[module.heads.0.prototypes0.weight,1]]",
        "config.LOSS.inter_swav_loss.queue_length=4",
    ],
}


@pytest.mark.parametrize("stage", [pytest.param(2, marks=pytest.mark.slow), 3])
def test_a_stage_trains_in_parts(
    engine: Callable[..., subprocess.CompletedProcess[str]],
    tiny_manifest: Path,
    stage1_checkpoint: Path,
    tmp_path: Path,
    stage: int,
) -> None:
    folder = tmp_path / "run"
    done = engine(
        f"config=jointssl/stage{stage}_swav",
        f"config.DATA.TRAIN.DATA_PATHS=['{tiny_manifest}']",
        f"config.CHECKPOINT.DIR='{folder}'",
        f"config.MODEL.WEIGHTS_INIT.PARAMS_FILE='{stage1_checkpoint}'",
        *TWO_RANKS,
        *TOY,
        *OVERRIDES[stage],
    )
    assert done.returncode == 0, done.stderr[-3000:]
    losses = [json.loads(line)["loss"] for line in (folder / "stdout.json").open()]
    assert len(losses) == 2  # 2 epochs, each one step of 2 ranks * 4 volumes
    assert np.isfinite(losses).all()
    newest = newest_checkpoint(folder)
    assert newest is not None
    before, after = read_checkpoint(stage1_checkpoint).trunk, read_checkpoint(newest).trunk
    moved = [name for name in before if "num_batches" not in name and not torch.equal(before[name], after[name])]
    assert len(moved) == 0 if stage == 2 else len(moved) > 100
    if stage == 3:
        queue = torch.load(newest, weights_only=False)["loss"]
        assert queue["queue.stored"].shape == (2, 4, 16)  # of the projection head's width
        assert queue["queue.filled"] == 4
        # two parts in each of two steps; the pass without gradient does not count
        assert after["_feature_blocks.bn1.num_batches_tracked"] == 4
