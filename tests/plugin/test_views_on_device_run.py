"""Stage 3 with views that the device makes, inside VISSL's engine, against views that loader workers make."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

TINY = [
    "config=jointssl/stage3_swav",
    "config.MACHINE.DEVICE=cpu",
    "config.DISTRIBUTED.BACKEND=gloo",
    "config.DISTRIBUTED.NUM_PROC_PER_NODE=1",
    "config.MODEL.AMP_PARAMS.USE_AMP=False",
    "config.DATA.PIN_MEMORY=False",
    "config.DATA.NUM_DATALOADER_WORKERS=1",
    "config.DATA.TRAIN.BATCHSIZE_PER_REPLICA=2",
    "config.DATA.TRAIN.TRANSFORMS.0.size=[32,32]",
    "config.DATA.TRAIN.TRANSFORMS.0.num_slices=6",
    "config.OPTIMIZER.num_epochs=2",
    "config.LOG_FREQUENCY=1",
    "config.MODEL.HEAD.PARAMS=[[swav_head,{dims:[640],use_bn:False,num_clusters:[5]}]]",
    "config.MODEL.TEMP_FROZEN_PARAMS_ITER_MAP=[[module.heads.0.prototypes0.weight,1]]",
    "+config.JOINT_SSL.SKIP_STAGE_2=True",
]


def _first_loss_and_data_waits(
    engine: Callable[..., subprocess.CompletedProcess[str]], folder: Path, *overrides: str
) -> tuple[float, list[float]]:
    result = engine(*TINY, f"config.CHECKPOINT.DIR='{folder}'", *overrides)
    assert result.returncode == 0, result.stderr
    losses = [json.loads(line) for line in (folder / "stdout.json").read_text().splitlines()]
    waits = [json.loads(line)["data_wait_share"] for line in (folder / "data_wait.jsonl").read_text().splitlines()]
    return next(line["loss"] for line in losses if "loss" in line), waits


@pytest.mark.slow
def test_the_first_loss_is_the_one_of_workers_views(
    engine: Callable[..., subprocess.CompletedProcess[str]],
    tmp_path: Path,
    tiny_manifest: Path,
    stage1_checkpoint: Path,
) -> None:
    given = [
        f"config.DATA.TRAIN.DATA_PATHS=['{tiny_manifest}']",
        f"config.MODEL.WEIGHTS_INIT.PARAMS_FILE='{stage1_checkpoint}'",
    ]
    by_workers, _ = _first_loss_and_data_waits(engine, tmp_path / "w", *given, "+config.JOINT_SSL.VIEWS_ON=workers")
    by_device, waits = _first_loss_and_data_waits(engine, tmp_path / "d", *given, "+config.JOINT_SSL.VIEWS_ON=device")
    assert by_device == pytest.approx(by_workers, abs=2e-4)
    assert len(waits) == 2  # the fourth step of each epoch
    assert all(0 < share < 1 for share in waits)
