"""The DeepCluster-v2 flavour's three stages end to end: on one rank, and on two with every stage killed and resumed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from vissl_jointssl.checkpoints import is_finished, newest_checkpoint, read_checkpoint, sha256
from vissl_jointssl.manifest import read_manifest, write_manifest
from vissl_jointssl.plugin.inter_deepclusterv2_loss import InterDeepClusterV2Loss

Start = Callable[[Path], "subprocess.Popen[str]"]
VIEWS = ["config.DATA.TRAIN.TRANSFORMS.0.size=[32,32]", "config.DATA.TRAIN.TRANSFORMS.0.num_slices=6"]
STAGE_SECONDS = 240


@pytest.fixture(scope="module")
def two_manifests(tiny_manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The eight training volumes in two manifests, five and three."""
    rows = read_manifest(tiny_manifest).select(splits=["train"])
    paths = []
    for name, part in (("five", rows[:5]), ("three", rows[5:])):
        folder = tmp_path_factory.mktemp(name)
        for row in part:
            (folder / row.path).write_bytes((tiny_manifest.parent / row.path).read_bytes())
        write_manifest(folder / "manifest.csv", part)
        paths.append(folder / "manifest.csv")
    return paths


def write_recipe(folder: Path, manifests: list[Path], ranks: int, volumes: int, epochs: int) -> Path:
    """Three stages of toy size."""
    listed = ",".join(f"'{path}'" for path in manifests)
    content: dict[str, Any] = {
        "run": str(folder / "run"),
        "manifest": str(manifests[0]),
        "device": "cpu",
        "processes": ranks,
        "overrides": [
            f"config.DATA.TRAIN.DATA_PATHS=[{listed}]",
            f"config.OPTIMIZER.num_epochs={epochs}",
            "config.CHECKPOINT.CHECKPOINT_FREQUENCY=1",
            "config.DATA.NUM_DATALOADER_WORKERS=0",
            "config.LOG_FREQUENCY=1",
        ],
        "stages": [
            {
                "config": "jointssl/stage1_deepclusterv2",
                "overrides": [
                    "config.DATA.TRAIN.BATCHSIZE_PER_REPLICA=8",
                    "config.DATA.TRAIN.TRANSFORMS.0.size_crops=[32]",
                    "config.LOSS.deepclusterv2_loss.num_clusters=[5,5,5]",
                ],
            },
            {
                "config": "jointssl/stage2_deepclusterv2",
                "overrides": [*VIEWS, f"config.DATA.TRAIN.BATCHSIZE_PER_REPLICA={volumes}"],
            },
            {
                "config": "jointssl/stage3_deepclusterv2",
                "overrides": [
                    *VIEWS,
                    f"config.DATA.TRAIN.BATCHSIZE_PER_REPLICA={volumes}",
                    "config.LOSS.inter_deepclusterv2_loss.num_clusters=[3,2]",
                ],
            },
        ],
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def finish(start: Start, recipe: Path) -> None:
    """Run to the end."""
    process = start(recipe)
    output, _ = process.communicate(timeout=3 * STAGE_SECONDS)
    assert process.returncode == 0, output


def loss_state(stage: Path) -> dict[str, torch.Tensor]:
    """What the newest checkpoint of stage 3 says of the loss."""
    path = newest_checkpoint(stage)
    assert path is not None
    state: dict[str, torch.Tensor] = torch.load(path, map_location="cpu")["loss"]
    return state


def log_of(stage: Path) -> str:
    """All that the stage's processes said."""
    return (stage / "launch.log").read_text()


def test_three_stages_on_two_data_sets_with_one_index(
    two_manifests: list[Path], tmp_path: Path, start_training: Start
) -> None:
    recipe = write_recipe(tmp_path, two_manifests, ranks=1, volumes=3, epochs=1)
    finish(start_training, recipe)
    run = tmp_path / "run"
    records = []
    for stage in (1, 2, 3):
        newest = newest_checkpoint(run / f"stage{stage}")
        assert newest is not None
        records.append((sha256(newest), read_checkpoint(newest).record))
        losses = [json.loads(line)["loss"] for line in (run / f"stage{stage}" / "stdout.json").open()]
        assert losses
        assert np.isfinite(losses).all()
    fingerprints = "+".join(read_manifest(path).fingerprint() for path in two_manifests)
    assert [(record.stage, record.flavour, record.manifest) for _, record in records] == [
        (stage, "deepclusterv2", fingerprints) for stage in (1, 2, 3)
    ]
    assert [record.parent for _, record in records[1:]] == [digest for digest, _ in records[:2]]
    state = loss_state(run / "stage3")
    # A step takes 3 of 8 volumes, so the epoch drops 2: they are remembered and assigned all the same.
    assert state["memory.known"].tolist() == [True] * 8
    torch.testing.assert_close(state["memory.embeddings"].norm(dim=2), torch.ones(2, 8))
    for assigned, clusters in zip(state["assignments"], (3, 2), strict=True):
        assert set(assigned.tolist()) == set(range(clusters))
    assert "memory of 8 samples filled by one pass" in log_of(run / "stage3")
    for path in run.rglob("*.torch"):
        path.unlink()  # 200 MB each


@pytest.mark.slow
def test_two_ranks_go_on_after_a_kill_with_the_memory_of_both(
    tiny_manifest: Path, tmp_path: Path, start_training: Start
) -> None:
    recipe = write_recipe(tmp_path, [tiny_manifest], ranks=2, volumes=2, epochs=2)
    run = tmp_path / "run"
    for stage in (1, 2, 3):
        process = start_training(recipe)
        deadline = time.monotonic() + STAGE_SECONDS
        while not (run / f"stage{stage}" / "checkpoint.torch").exists():
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline, f"stage {stage} wrote no checkpoint"
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert not is_finished(run / f"stage{stage}"), "killed too late to prove anything"
    before = loss_state(run / "stage3")
    assert before["memory.known"].all()
    assert before["clustered_epoch"] == 0
    finish(start_training, recipe)
    log = log_of(run / "stage3")
    assert "memory of 8 samples restored from" in log
    assert "filled by one pass" not in log.split("restored from")[1]
    after = loss_state(run / "stage3")
    assert after["clustered_epoch"] == 1
    fresh = InterDeepClusterV2Loss(
        temperature=0.1, num_clusters=[3, 2], kmeans_iters=10, memory_views=[0, 1], num_views=2, embedding_width=640,
        num_train_samples=8, seed=0,
    )  # fmt: skip
    fresh.load_state_dict(before)
    fresh.cluster(1)
    assert torch.equal(after["assignments"], fresh.assignments)
    for head in range(2):
        torch.testing.assert_close(after[f"centroids{head}"], fresh.centroids(head))
    for path in run.rglob("*.torch"):
        path.unlink()
