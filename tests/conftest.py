"""Fixtures that several folders of tests share."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml

from vissl_jointssl.checkpoints import is_finished, sha256
from vissl_jointssl.manifest import Entry, write_manifest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture
def engine(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run our launcher with Hydra overrides in a process of its own, as a user does, from a strange folder."""

    def run(*overrides: str, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(ROOT / "tools" / "run_distributed_engines.py"), *overrides],
            cwd=tmp_path,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            encoding="utf-8",
            timeout=timeout,
        )

    return run


@pytest.fixture(scope="session")
def tiny_manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten volumes of 5 to 7 slices of 32x32 with two classes, eight to train on; bright discs or bright squares."""
    folder = tmp_path_factory.mktemp("tiny")
    rng = np.random.default_rng(0)
    rows = np.arange(32)[:, None]
    columns = np.arange(32)[None, :]
    entries = []
    for index in range(10):
        label = index % 2
        slices = 5 + index % 3
        centre = rng.integers(12, 20, size=2)
        away = np.stack(np.broadcast_arrays(rows - centre[0], columns - centre[1]))
        shape = np.hypot(*away) < 8 if label else np.abs(away).max(axis=0) < 8
        volume = rng.normal(0.2, 0.05, (slices, 32, 32)) + 0.6 * shape
        array = (np.clip(volume, 0, 1) * 65535).astype(np.uint16)
        path = folder / f"volume{index}.npy"
        np.save(path, array)
        entries.append(
            Entry(
                id=f"volume{index}",
                kind="volume",
                path=path.name,
                label_path=None,
                label=label,
                split="train" if index < 8 else "test",
                patient=f"patient{index}",
                modality="CT",
                spacing=(2.0, 1.0, 1.0),
                shape=array.shape,
                dtype="uint16",
                sha256=sha256(path),
            )
        )
    write_manifest(folder / "manifest.csv", entries)
    return folder / "manifest.csv"


# --- the three stages at toy size

VIEWS = ["config.DATA.TRAIN.TRANSFORMS.0.size=[32,32]", "config.DATA.TRAIN.TRANSFORMS.0.num_slices=6"]
CHECKPOINT_SECONDS = 240


@pytest.fixture(scope="session")
def recipe(tiny_manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The paper's three stages at toy size: 2 epochs each, 2 ranks with 2 volumes each."""
    folder = tmp_path_factory.mktemp("pipeline")
    content = {
        "run": str(folder / "run"),
        "manifest": str(tiny_manifest),
        "device": "cpu",
        "processes": 2,
        "overrides": [
            "config.OPTIMIZER.num_epochs=2",
            "config.CHECKPOINT.CHECKPOINT_FREQUENCY=1",
            "config.DATA.NUM_DATALOADER_WORKERS=1",
            "config.LOG_FREQUENCY=1",
        ],
        "stages": [
            {
                "config": "jointssl/stage1_swav",
                "overrides": [
                    "config.DATA.TRAIN.BATCHSIZE_PER_REPLICA=8",
                    "config.DATA.TRAIN.TRANSFORMS.0.size_crops=[32,16]",
                    "config.MODEL.TEMP_FROZEN_PARAMS_ITER_MAP=[[module.heads.0.prototypes0.weight,1]]",
                ],
            },
            {"config": "jointssl/stage2_swav", "overrides": [*VIEWS, "config.DATA.TRAIN.BATCHSIZE_PER_REPLICA=2"]},
            {
                "config": "jointssl/stage3_swav",
                "overrides": [
                    *VIEWS,
                    "config.DATA.TRAIN.BATCHSIZE_PER_REPLICA=2",
                    "config.MODEL.HEAD.PARAMS=[[swav_head,{dims:[640],use_bn:False,num_clusters:[5]}]]",
                    "config.MODEL.TEMP_FROZEN_PARAMS_ITER_MAP=[[module.heads.0.prototypes0.weight,1]]",
                ],
            },
        ],
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture(scope="session")
def start_training() -> Callable[[Path], subprocess.Popen[str]]:
    """Start `jointssl train` as a person does, in a session of its own, so that all of it can be killed."""

    def start(recipe: Path) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "vissl_jointssl.cli", "train", str(recipe)],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            start_new_session=True,
        )

    return start


@pytest.fixture(scope="session")
def trained(recipe: Path, start_training: Callable[[Path], subprocess.Popen[str]]) -> Path:
    """A run whose every stage was killed with SIGKILL after its first epoch, and resumed by the same command."""
    run = recipe.parent / "run"
    for stage in (1, 2, 3):
        process = start_training(recipe)
        deadline = time.monotonic() + CHECKPOINT_SECONDS
        # VISSL makes the link once the checkpoint is whole
        while not (run / f"stage{stage}" / "checkpoint.torch").exists():
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline, f"stage {stage} wrote no checkpoint"
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert not is_finished(run / f"stage{stage}"), "killed too late to prove anything"
    process = start_training(recipe)
    output, _ = process.communicate(timeout=CHECKPOINT_SECONDS)
    assert process.returncode == 0, output
    return run


# --- stock VISSL


@pytest.fixture
def one_gloo_rank(tmp_path):
    """A process group of this one process, as VISSL's trainer makes it on CPU."""
    import torch
    from classy_vision.generic import distributed_util

    import vissl_jointssl.plugin  # noqa: F401 - before the first import of VISSL's wheel

    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", world_size=1, rank=0)
    device = distributed_util.get_cuda_device_index()
    distributed_util.set_cpu_device()
    yield
    distributed_util._cuda_device_index = device
    torch.distributed.destroy_process_group()


def _run_rank(rank, function, meeting_point, results):
    import torch

    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{meeting_point}", world_size=2, rank=rank)
    results[rank].send(function(rank))
    torch.distributed.destroy_process_group()


@pytest.fixture
def on_two_ranks(tmp_path):
    """Call a function of the rank in two gloo processes and return what it returned in each.

    Forked, so that the function may live in a test file and nothing is imported twice.
    """
    import multiprocessing

    import torch

    torch.set_num_threads(1)  # a forked child cannot use the threads of its parent
    context = multiprocessing.get_context("fork")

    def run(function):
        pipes = [context.Pipe(duplex=False) for _ in range(2)]
        senders = [sender for _, sender in pipes]
        meeting_point = tmp_path / "meeting_point"
        ranks = [
            context.Process(target=_run_rank, args=(rank, function, meeting_point, senders), daemon=True)
            for rank in range(2)
        ]
        for process in ranks:
            process.start()
        answers = []
        for (receiver, sender), process in zip(pipes, ranks, strict=True):
            sender.close()
            assert receiver.poll(60), f"a rank gave no answer within 60 s (exit code {process.exitcode})"
            answers.append(receiver.recv())
        for process in ranks:
            process.join(60)
        meeting_point.unlink(missing_ok=True)
        return answers

    return run
