"""Two launchers that meet over TCP, one rank each, are one launcher with two ranks."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

SECONDS = 180
STAGE_3 = [
    "config=jointssl/stage3_swav",
    "config.DATA.TRAIN.TRANSFORMS.0.size=[32,32]",
    "config.DATA.TRAIN.TRANSFORMS.0.num_slices=6",
    "config.DATA.TRAIN.BATCHSIZE_PER_REPLICA=2",
    "config.DATA.NUM_DATALOADER_WORKERS=0",
    "config.MODEL.HEAD.PARAMS=[[swav_head,{dims:[640],use_bn:False,num_clusters:[5]}]]",
    "config.MODEL.TEMP_FROZEN_PARAMS_ITER_MAP=[[module.heads.0.prototypes0.weight,1]]",
    "+config.JOINT_SSL.SKIP_STAGE_2=True",
    "config.OPTIMIZER.num_epochs=2",
    "config.MACHINE.DEVICE=cpu",
    "config.DISTRIBUTED.BACKEND=gloo",
]


@pytest.fixture
def start(root: Path, tiny_manifest: Path, stage1_checkpoint: Path, tmp_path: Path) -> Callable[..., subprocess.Popen]:
    """Start a launcher, as a person does on each node; what it says goes into a file named after its last word."""

    def begin(folder: Path, *more: str) -> subprocess.Popen:
        given = [
            *STAGE_3,
            f"config.DATA.TRAIN.DATA_PATHS=['{tiny_manifest}']",
            f"config.MODEL.WEIGHTS_INIT.PARAMS_FILE='{stage1_checkpoint}'",
            f"config.CHECKPOINT.DIR='{folder}'",
        ]
        return subprocess.Popen(
            [sys.executable, str(root / "tools" / "run_distributed_engines.py"), *given, *more],
            cwd=tmp_path,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=(tmp_path / f"{more[-1]}.log").open(
                "w"
            ),  # a pipe that nobody reads would hold one, and so the other
            stderr=subprocess.STDOUT,
        )

    return begin


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _wait(folder: Path, *launchers: subprocess.Popen) -> None:
    try:
        for launcher in launchers:
            code = launcher.wait(timeout=SECONDS)
            assert code == 0, [log.read_text()[-3000:] for log in folder.glob("*.log")]
    finally:
        for launcher in launchers:
            launcher.kill()
            launcher.wait()


def _end(folder: Path) -> tuple[list[float], dict[str, torch.Tensor]]:
    (final,) = folder.glob("model_final*.torch")
    state = torch.load(final, map_location="cpu", weights_only=True)["classy_state_dict"]
    return state["losses"], state["base_model"]["model"]["trunk"]


@pytest.mark.slow
def test_two_nodes_of_one_rank_are_one_node_of_two(start: Callable[..., subprocess.Popen], tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    _wait(tmp_path, start(one, "config.DISTRIBUTED.NUM_NODES=1", "config.DISTRIBUTED.NUM_PROC_PER_NODE=2"))
    nodes = [
        "config.DISTRIBUTED.NUM_NODES=2",
        "config.DISTRIBUTED.NUM_PROC_PER_NODE=1",
        "config.DISTRIBUTED.INIT_METHOD=tcp",
        f"config.DISTRIBUTED.RUN_ID=127.0.0.1:{_free_port()}",
    ]
    _wait(tmp_path, *(start(two, *nodes, f"node_id={node}") for node in (0, 1)))
    (losses, weights), (losses_of_two, weights_of_two) = _end(one), _end(two)
    assert len(losses) == 2  # steps of the last epoch: 8 volumes, 2 ranks of 2
    assert losses == losses_of_two
    assert weights.keys() == weights_of_two.keys()
    assert [name for name in weights if not torch.equal(weights[name], weights_of_two[name])] == []
