"""Every command that README.md and tools/README.md show is run here, at toy size where it trains."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest

from vissl_jointssl.checkpoints import newest_checkpoint

TINY = [
    "config.MACHINE.DEVICE=cpu",
    "config.DISTRIBUTED.NUM_PROC_PER_NODE=1",
    "config.DATA.NUM_DATALOADER_WORKERS=0",
    "config.OPTIMIZER.num_epochs=1",
    "config.DATA.TRAIN.BATCHSIZE_PER_REPLICA=4",
    "config.DATA.TRAIN.TRANSFORMS.0.size=[32,32]",
    "config.DATA.TRAIN.TRANSFORMS.0.num_slices=6",
]
TINY_SYNTHETIC = [
    "config.OPTIMIZER.num_epochs=1",
    "config.DATA.TRAIN.DATA_LIMIT=8",
    "config.DATA.TRAIN.BATCHSIZE_PER_REPLICA=4",
    "config.DATA.NUM_DATALOADER_WORKERS=0",
    "config.DISTRIBUTED.NUM_PROC_PER_NODE=1",
]


def _commands(text: str) -> list[str]:
    """Shell commands of a Markdown text: lines of fenced blocks, and code spans that start like one."""
    text = re.sub(r"\\\n\s+", "", text)
    blocks = re.findall(r"^```\n(.*?)^```", text, flags=re.S | re.M)
    lines = [line for block in blocks for line in block.splitlines()]
    prose = re.sub(r"^```\n.*?^```", "", text, flags=re.S | re.M)
    spans = [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose)]
    starts = ("make ", "python ", "jointssl ")
    found = [line.split("  #")[0].strip() for line in [*lines, *spans]]
    return [command for command in found if command.startswith(starts) and len(command.split()) > 1]


@pytest.fixture(scope="module")
def place(tiny_manifest: Path, trained: Path, root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which README's paths exist: SCANS, data/manifest.csv, runs/mine/stage{2,3}, and the checkout's."""
    folder = tmp_path_factory.mktemp("newcomer")
    for name in ("tools", "configs", "vissl_jointssl", "requirements.lock.txt", "Makefile", "setup.py", "README.md"):
        (folder / name).symlink_to(root / name)
    shutil.copytree(tiny_manifest.parent, folder / "data")
    for stage in (2, 3):
        checkpoint = newest_checkpoint(trained / f"stage{stage}")
        assert checkpoint is not None
        kept = folder / "runs" / "mine" / f"stage{stage}" / "model_final_checkpoint_phase99.torch"
        kept.parent.mkdir(parents=True)
        kept.symlink_to(checkpoint)
        shutil.copy(checkpoint.with_name("train_config.yaml"), kept.parent)
    (folder / "SCANS").mkdir()
    values = np.random.default_rng(0).integers(-900, 900, (24, 24, 8)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(values, np.diag([1, 1, 3, 1])), folder / "SCANS" / "scan.nii.gz")
    return folder


@pytest.fixture
def at_toy_size(place: Path, tmp_path: Path) -> Callable[[list[str]], list[str]]:
    """How a command of the documents is run here: as written, but small, and not on top of what lies there."""

    def adapt(words: list[str]) -> list[str]:
        if words[:1] == ["make"]:
            return [*words, "--dry-run"]  # each verb has its own test or is this test run
        if words[:2] == ["python", "-m"] and "pip" in words:
            return [sys.executable, *words[1:], "--dry-run", "--no-build-isolation", "--quiet"]
        if words[:1] == ["python"] and "jointssl/stage3_swav" in words[2]:
            clusters = "config.MODEL.HEAD.PARAMS=[[swav_head,{dims:[640],use_bn:False,num_clusters:[5]}]]"
            words = [word.replace("runs/mine/stage3", str(tmp_path / "stage3")) for word in words]
            return [sys.executable, *words[1:], *TINY, clusters]
        if words[:1] == ["python"] and "quick_simclr_synthetic" in words[2]:
            return [sys.executable, *words[1:], *TINY_SYNTHETIC, f"config.CHECKPOINT.DIR={tmp_path}"]
        if words[:1] == ["python"] and words[1] in ("tools/train_svm.py", "tools/nearest_neighbor_test.py"):
            return [sys.executable, *words[1:], *TINY, "config.NEAREST_NEIGHBOR.TOPK=4"]  # of 8 training volumes
        if words[:1] == ["python"] and words[1].startswith(("tools/fetch_", "tools/demo", "tools/study_")):
            return [sys.executable, words[1], "--help"]  # these need a network or data; test-slow runs the demo
        jointssl = [sys.executable, "-m", "vissl_jointssl.cli", *words[1:]]
        if words[1] == "train":
            return [*(word.replace("runs/mine", str(tmp_path / "run")) for word in jointssl), "device=cpu", "--dry-run"]
        return [word.replace("data", str(tmp_path / "data")) if words[1] == "prepare" else word for word in jointssl]

    return adapt


@pytest.mark.parametrize("document", ["README.md", "tools/README.md", "CONTRIBUTING.md"])
def test_every_command_of_a_document_works(
    document: str, root: Path, place: Path, at_toy_size: Callable[[list[str]], list[str]]
) -> None:
    commands = _commands((root / document).read_text(encoding="utf-8"))
    assert len(commands) >= {"README.md": 8, "tools/README.md": 2, "CONTRIBUTING.md": 2}[document]
    for command in commands:
        result = subprocess.run(
            at_toy_size(shlex.split(command)),
            cwd=place,
            env={**os.environ, "OMP_NUM_THREADS": "2", "PYTHONPATH": str(root)},
            capture_output=True,
            encoding="utf-8",
            check=False,
        )
        assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"


@pytest.mark.slow
def test_the_demo_ends_in_a_report_and_runs_again_within_seconds(root: Path, tmp_path: Path) -> None:
    import time

    command = [sys.executable, str(root / "tools" / "demo.py"), "--run", str(tmp_path / "demo")]
    subprocess.run(command, cwd=tmp_path, check=True)
    assert (tmp_path / "demo" / "report.html").stat().st_size > 100_000
    began = time.monotonic()
    subprocess.run(command, cwd=tmp_path, check=True)
    assert time.monotonic() - began < 30
