"""Each evaluation for real, on the tiny volumes, from a checkpoint of stage 1."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

Program = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def overrides(tiny_manifest: Path, stage1_checkpoint: Path, tmp_path: Path) -> list[str]:
    """What every evaluation of volumes is told here."""
    given = [f"config.MODEL.WEIGHTS_INIT.PARAMS_FILE='{stage1_checkpoint}'", f"config.CHECKPOINT.DIR='{tmp_path}'"]
    given += ["config.MACHINE.DEVICE=cpu", "config.DATA.NUM_DATALOADER_WORKERS=0"]
    for split in ("TRAIN", "TEST"):
        given.append(f"config.DATA.{split}.DATA_PATHS=['{tiny_manifest}']")
        given += [f"config.DATA.{split}.TRANSFORMS.0.num_slices=6", f"config.DATA.{split}.TRANSFORMS.0.size=[32,32]"]
    return given


@pytest.fixture
def tool(root: Path, tmp_path: Path) -> Program:
    """Run one of our tools from a strange folder."""

    def run(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(root / "tools" / name), *arguments],
            cwd=tmp_path,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            encoding="utf-8",
            timeout=300,
        )

    return run


def test_volumes_of_stage_1_are_classified_by_a_linear_layer(
    engine: Program, overrides: list[str], tmp_path: Path
) -> None:
    epochs = ["config.OPTIMIZER.num_epochs=2", "config.DATA.TEST.BATCHSIZE_PER_REPLICA=2"]
    result = engine("config=jointssl/linear_volume", *overrides, *epochs)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "is of stage 1 and has no f_inter: Z is the normalised mean over the slices" in result.stdout
    lines = [json.loads(line) for line in (tmp_path / "metrics.json").read_text().splitlines()]
    accuracies = [
        line["test_accuracy_list_meter"]["top_1"]["volume"] for line in lines if "test_accuracy_list_meter" in line
    ]
    assert len(accuracies) == 2
    assert all(0 <= accuracy <= 100 for accuracy in accuracies)


def test_nearest_neighbours_of_volumes_through_the_tool(tool: Program, overrides: list[str], tmp_path: Path) -> None:
    stale = tmp_path / "rank7_chunk0_train_volume_features.npy"
    np.save(stale, np.zeros((1, 3)))
    result = tool(
        "nearest_neighbor_test.py", "config=jointssl/knn_volume", *overrides, "config.NEAREST_NEIGHBOR.TOPK=4"
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "replaced 1 feature files of an earlier run" in result.stdout
    assert not stale.exists()
    features = np.load(tmp_path / "rank0_chunk0_train_volume_features.npy")
    assert features.shape == (8, 3904)
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, atol=1e-5)
    results = json.loads((tmp_path / "nearest_neighbor.json").read_text())
    assert list(results) == ["volume"]
    assert results["volume"]["top1"] in (0.0, 50.0, 100.0)  # of two volumes


@pytest.mark.slow
def test_svms_of_volumes_through_the_tool(tool: Program, overrides: list[str], tmp_path: Path) -> None:
    result = tool("train_svm.py", "config=jointssl/svm_volume", *overrides)
    assert result.returncode == 0, result.stdout + result.stderr
    results = json.loads((tmp_path / "svm.json").read_text())
    assert len(results["volume"]["ap"]) == 2
    assert results["volume"]["accuracy"] in (0.0, 50.0, 100.0)
    assert (tmp_path / "volume" / "test_ap.npy").exists()
