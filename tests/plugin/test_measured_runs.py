"""Stage 2's baselines and stage 3's monitor inside VISSL's engine."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vissl_jointssl.checkpoints import newest_checkpoint, read_checkpoint

TINY = [
    "config.MACHINE.DEVICE=cpu",
    "config.DISTRIBUTED.BACKEND=gloo",
    "config.DISTRIBUTED.NUM_PROC_PER_NODE=1",
    "config.MODEL.AMP_PARAMS.USE_AMP=False",
    "config.DATA.PIN_MEMORY=False",
    "config.DATA.NUM_DATALOADER_WORKERS=0",
    "config.DATA.TRAIN.BATCHSIZE_PER_REPLICA=2",  # 8 volumes: 4 steps an epoch
    "config.DATA.TRAIN.TRANSFORMS.0.size=[32,32]",
    "config.DATA.TRAIN.TRANSFORMS.0.num_slices=6",
    "config.CHECKPOINT.CHECKPOINT_FREQUENCY=100",
]
STAGE_3 = [
    "+config.JOINT_SSL.SKIP_STAGE_2=True",
    "config.MODEL.HEAD.PARAMS=[[swav_head,{dims:[640],use_bn:False,num_clusters:[5]}]]",
    "config.MODEL.TEMP_FROZEN_PARAMS_ITER_MAP=[[module.heads.0.prototypes0.weight,1]]",
    "config.LOG_FREQUENCY=1",
]
Engine = Callable[..., subprocess.CompletedProcess[str]]


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _run(engine: Engine, folder: Path, manifest: Path, parent: Path, *overrides: str) -> str:
    result = engine(
        *TINY,
        f"config.DATA.TRAIN.DATA_PATHS=['{manifest}']",
        f"config.CHECKPOINT.DIR='{folder}'",
        f"config.MODEL.WEIGHTS_INIT.PARAMS_FILE='{parent}'",
        *overrides,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout + result.stderr


def test_20_steps_of_stage_2_move_no_bit_of_f_intra_and_show_both_baselines(
    engine: Engine, tmp_path: Path, tiny_manifest: Path, stage1_checkpoint: Path
) -> None:
    folder = tmp_path / "stage2"
    said = _run(
        engine,
        folder,
        tiny_manifest,
        stage1_checkpoint,
        "config=jointssl/stage2_swav",
        "config.OPTIMIZER.num_epochs=5",
        "config.HOOKS.TENSORBOARD_SETUP.USE_TENSORBOARD=True",
        "config.LOG_FREQUENCY=5",
    )
    last = newest_checkpoint(folder)
    assert last is not None
    before, after = read_checkpoint(stage1_checkpoint).trunk, read_checkpoint(last).trunk
    shared = [name for name in before if name.startswith("_feature_blocks.")]
    assert sum("running_var" in name for name in shared) == 53
    assert all(torch.equal(before[name], after[name]) for name in shared)

    lines = _lines(folder / "masked_baselines.jsonl")
    assert [line["iteration"] for line in lines] == [0, 1, 5, 10, 15]
    losses = {line["iter"]: line["loss"] for line in _lines(folder / "stdout.json")}
    for line in lines:
        assert line["loss"] == pytest.approx(losses[line["iteration"]], abs=1e-4)
        assert 0 < line["mean_embedding"] < 10
        assert 0 < line["neighbours"] < 10
    assert f"the mean embedding would have {lines[-1]['mean_embedding']:.4f}" in said
    assert set(json.loads((folder / "progress.json").read_text())["beside_loss"]) == {
        "mean_embedding",
        "neighbours",
        "data_wait",
    }

    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(folder / "tb_logs"))
    board.Reload()
    curve = board.Scalars("MaskedBaselines/neighbours")
    assert [point.step for point in curve] == [line["iteration"] for line in lines]
    np.testing.assert_allclose([point.value for point in curve], [line["neighbours"] for line in lines], rtol=1e-5)


def test_an_absurd_learning_rate_collapses_stage_3_and_the_run_says_so_once(
    engine: Engine, tmp_path: Path, tiny_manifest: Path, stage1_checkpoint: Path
) -> None:
    folder = tmp_path / "stage3"
    said = _run(
        engine,
        folder,
        tiny_manifest,
        stage1_checkpoint,
        "config=jointssl/stage3_swav",
        *STAGE_3,
        "config.OPTIMIZER.num_epochs=3",
        "config.OPTIMIZER.use_larc=False",
        "config.OPTIMIZER.param_schedulers.lr.schedulers.0.start_value=30",
        "config.OPTIMIZER.param_schedulers.lr.schedulers.0.end_value=30",
        "config.OPTIMIZER.param_schedulers.lr.schedulers.1.start_value=30",
        "+config.JOINT_SSL.COLLAPSE={WARM_UP: 0.0, WARM_UP_STEPS: 0, PATIENCE: 3, VOLUMES: 6, MEAN_COSINE: 0.95}",
    )
    lines = _lines(folder / "collapse.jsonl")
    cosines = [line["mean_cosine"] for line in lines if "mean_cosine" in line]
    assert max(cosines[1:4]) < 0.95 < min(cosines[-4:])
    warnings = [line["warning"] for line in lines if "warning" in line]
    alike = [text for text in warnings if "all volumes look alike: mean cosine" in text]
    assert len(alike) == 1
    assert said.count(alike[0]) == 1
    assert "(limit 0.95); lower the learning rate (OPTIMIZER.param_schedulers.lr)" in alike[0]
    assert json.loads((folder / "progress.json").read_text())["warnings"] == warnings
