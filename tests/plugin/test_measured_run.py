"""A stage that is measured before its parent exists: a few steps of the real run, from random weights."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from vissl_jointssl.plugin import loader_seconds, measured_run
from vissl_jointssl.plugin.config_faults import ConfigError
from vissl_jointssl.plugin.hooks import step_measures
from vissl_jointssl.plugin.planned_views import MadeBatches
from vissl_jointssl.run_signs import STEP_MEASURES_FILE

# isort: split
from vissl.config import AttrDict

TINY = [
    "config.MACHINE.DEVICE=cpu",
    "config.DISTRIBUTED.NUM_PROC_PER_NODE=1",
    "config.DATA.TRAIN.TRANSFORMS.0.size=[32,32]",
    "config.DATA.TRAIN.TRANSFORMS.0.num_slices=6",
    "config.DATA.TRAIN.BATCHSIZE_PER_REPLICA=2",
]


def _of(stage: str, manifest: Path, folder: Path, *more: str) -> list[str]:
    paths = [f"config.DATA.TRAIN.DATA_PATHS=['{manifest}']", f"config.CHECKPOINT.DIR='{folder}'"]
    return [f"config=jointssl/{stage}", *paths, *TINY, *more]


@pytest.mark.parametrize("stage", ["stage2_swav", "stage3_swav", "stage3_deepclusterv2"])
def test_a_stage_without_its_parent_starts_from_random_weights(stage: str, tiny_manifest: Path, tmp_path: Path) -> None:
    config = measured_run.read_unstarted(_of(stage, tiny_manifest, tmp_path))
    assert config.MODEL.WEIGHTS_INIT.PARAMS_FILE == ""
    assert config.JOINT_SSL.RECORD["parent"] is None


def test_a_parent_that_the_recipe_names_is_checked(tiny_manifest: Path, tmp_path: Path) -> None:
    given = _of("stage2_swav", tiny_manifest, tmp_path, "config.MODEL.WEIGHTS_INIT.PARAMS_FILE=nowhere.torch")
    with pytest.raises(ConfigError, match=r"PARAMS_FILE: nowhere\.torch"):
        measured_run.read_unstarted(given)


def test_what_is_missing_beside_the_parent_is_still_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="DATA_PATHS is not set"):
        measured_run.read_unstarted(["config=jointssl/stage2_swav", f"config.CHECKPOINT.DIR='{tmp_path}'", *TINY])


@pytest.mark.parametrize(
    ("loss", "clusters", "samples", "expected"),
    [
        ("inter_deepclusterv2_loss", [4, 4], 1000, 5 * 8 * 2),  # as many as the steps need
        ("deepclusterv2_loss", [100, 30], 1000, 13 * 8 * 2),  # 13 batches of 8 hold 100
        ("deepclusterv2_loss", [100], 200, None),  # no more than there are
        ("inter_swav_loss", None, 1000, None),
    ],
)
def test_only_what_is_clustered_first_is_cut_and_not_below_its_clusters(
    loss: str, clusters: list[int] | None, samples: int, expected: int | None
) -> None:
    config = AttrDict(
        {
            "LOSS": {"name": loss, loss: {"num_clusters": clusters}},
            "DATA": {"TRAIN": {"BATCHSIZE_PER_REPLICA": 8}},
            "DISTRIBUTED": {"NUM_PROC_PER_NODE": 2},
        }
    )
    assert measured_run.enough_samples(config, samples) == expected


class _Iterator:
    """Three batches of (2, 5, 3, 4, 4) float32."""

    def __init__(self) -> None:
        self.left = 3

    def __len__(self) -> int:
        return 3

    def __next__(self) -> dict[str, list[torch.Tensor]]:
        if not self.left:
            raise StopIteration
        self.left -= 1
        return {"data": [torch.zeros(2, 5, 3, 4, 4)]}


def test_a_run_ends_in_good_order_after_the_steps_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 1000, 10))
    monkeypatch.setattr(step_measures, "device_time", lambda device: float(next(clock)))
    hook = step_measures.StepMeasuresHook(tmp_path / STEP_MEASURES_FILE, 4, {"samples": 6})
    task = SimpleNamespace(
        device=torch.device("cpu"), train=True, phases=[{}] * 9, phase_idx=-1, config={"CHECKPOINT": {}}
    )
    hook.on_start(task)
    steps = 0
    for _ in range(9):
        if task.phase_idx + 1 == len(task.phases):
            break
        task.phase_idx += 1
        task.data_iterator = _Iterator()
        hook.on_phase_start(task)
        assert len(task.data_iterator) == 3
        while True:
            try:
                next(task.data_iterator)
            except StopIteration:
                break
            hook.on_step(task)
            steps += 1
    assert steps == 4  # an epoch of 3 and one step
    assert task.phase_idx == 1
    assert task.config["CHECKPOINT"]["CHECKPOINT_FREQUENCY"] == 1  # VISSL weighs in after this epoch
    assert hook._found["steps"][1:3] == [10.0, 10.0]
    assert hook._found["batch_bytes"] == 2 * 5 * 3 * 4 * 4 * 4
    assert hook._found["batch_images"] == 2 * 5
    assert json.loads((tmp_path / STEP_MEASURES_FILE).read_text()) == {"facts": {"samples": 6}, "ranks": 1}


def test_views_that_the_device_makes_are_no_wait_and_not_in_shared_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @dataclass
    class Planned:
        windows: torch.Tensor

        def make(self, device: torch.device) -> dict[str, list[torch.Tensor]]:
            clock.append(clock[-1] + 5.0)
            return {"data": [torch.zeros(2, 4, 3, 8, 8)]}

    class Loader:
        def __len__(self) -> int:
            return 9

        def __next__(self) -> Planned:
            clock.append(clock[-1] + 1.0)
            return Planned(torch.zeros(10, dtype=torch.uint8))

    clock = [0.0]
    monkeypatch.setattr(step_measures.time, "perf_counter", lambda: clock[-1])
    hook = step_measures.StepMeasuresHook(tmp_path / STEP_MEASURES_FILE, 3, {"samples": 6})
    task = SimpleNamespace(device=torch.device("cpu"), train=True, phases=[{}], phase_idx=0, config={"CHECKPOINT": {}})
    task.data_iterator = MadeBatches(Loader(), task.device)
    hook.on_phase_start(task)
    for _ in range(3):
        next(task.data_iterator)
        hook.on_step(task)
    assert hook._found["steps"] == [0.0, 6.0, 6.0]
    assert hook._found["waits"] == [0.0, 1.0, 1.0]
    assert (hook._found["batch_bytes"], hook._found["batch_images"]) == (10, 8)


@pytest.fixture
def measure(tiny_manifest: Path, tmp_path: Path) -> Callable[..., dict]:
    """Measure a stage in a process of its own, as `jointssl train --plan` does."""

    def run(stage: str, *more: str) -> dict:
        done = subprocess.run(
            [sys.executable, "-m", measured_run.__name__, *_of(stage, tiny_manifest, tmp_path / "run", *more)],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            cwd=tmp_path,
            capture_output=True,
            encoding="utf-8",
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads((tmp_path / "run" / STEP_MEASURES_FILE).read_text())

    return run


def test_stage_3_is_measured_with_its_memory_loader_and_checkpoint(
    measure: Callable[..., dict], tmp_path: Path
) -> None:
    found = measure(
        "stage3_deepclusterv2",
        "config.LOSS.inter_deepclusterv2_loss.num_clusters=[3,2]",
        "config.DATA.NUM_DATALOADER_WORKERS=1",
    )
    assert len(found["steps"]) == len(found["waits"]) == 5  # of 4 a epoch
    assert found["facts"]["samples"] == 8
    assert found["facts"]["epochs"] == 100
    assert found["facts"]["checkpoint_every_epochs"] == 5
    assert min(found[key] for key in ("start", "epoch_hooks", "first_batch", "sample", "checkpoint")) > 0
    assert all(0 <= wait < step for step, wait in zip(found["steps"], found["waits"], strict=True))
    assert found["batch_images"] == 2 * 2 * 6  # volumes, views, slices
    assert found["batch_bytes"] in (2 * 2 * 6 * 32 * 32 * 4, 2 * 2 * 6 * 3 * 32 * 32 * 4)  # grey, or as three colours
    weights = 23_508_032 * 4  # of a ResNet-50 without its classifier
    assert found["peak"] > found["static"] > 3 * weights  # and gradients, and momentum
    names = {path.name for path in (tmp_path / "run").glob("model_*.torch")}
    assert names == {"model_phase0.torch", "model_phase1.torch"}
    assert found["checkpoint_bytes"] > 2 * weights


def test_a_sample_is_timed_with_one_thread_and_within_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    class Data:
        def __len__(self) -> int:
            return 100

        def __getitem__(self, index: int) -> None:
            threads.add(torch.get_num_threads())
            clock.append(clock[-1] + (9.0 if len(clock) == 1 else 4.0))

    threads: set[int] = set()
    clock = [0.0]
    monkeypatch.setattr(loader_seconds.time, "perf_counter", lambda: clock[-1])
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert loader_seconds.sample_seconds(Data()) == 6.5  # of 9 and 4, which are more than 10 together
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert threads == {1}
