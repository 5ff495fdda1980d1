"""VISSL's engine on two ranks with volumes that turn infinite: skipped, then stopped, and the step taken again."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import vissl_jointssl
from vissl_jointssl import cli
from vissl_jointssl.checkpoints import newest_checkpoint, read_checkpoint

TINY = [
    "config.MACHINE.DEVICE=cpu",
    "config.DISTRIBUTED.BACKEND=gloo",
    "config.MODEL.AMP_PARAMS.USE_AMP=False",
    "config.DATA.NUM_DATALOADER_WORKERS=0",
    "config.DATA.TRAIN.BATCHSIZE_PER_REPLICA=2",
    "config.DATA.TRAIN.TRANSFORMS.0.size=[32,32]",
    "config.DATA.TRAIN.TRANSFORMS.0.num_slices=6",
]


@pytest.mark.slow
def test_two_ranks_skip_one_bad_volume_and_stop_together_at_many(
    tmp_path: Path, tiny_manifest: Path, stage1_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "stage2"
    overrides = [
        "config=jointssl/stage2_swav",
        *TINY,
        "config.DISTRIBUTED.NUM_PROC_PER_NODE=2",  # 8 volumes, 2 * 2 a step: 2 steps an epoch
        "config.CHECKPOINT.CHECKPOINT_FREQUENCY=1",
        "config.OPTIMIZER.num_epochs=3",
        "+config.JOINT_SSL.NUMBERS={SKIP: 1}",
        f"config.DATA.TRAIN.DATA_PATHS=['{tiny_manifest}']",
        f"config.CHECKPOINT.DIR='{folder}'",
        f"config.MODEL.WEIGHTS_INIT.PARAMS_FILE='{stage1_checkpoint}'",
    ]
    root = Path(vissl_jointssl.__file__).parents[1]
    result = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("poisoned_engine.py")), *overrides],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        encoding="utf-8",
        timeout=300,
    )
    said = result.stdout + result.stderr
    assert result.returncode == 1, said
    log = (folder / "log.txt").read_text()
    assert "with volume2 (volume2.npy) [index 2, rank" in log
    last_words = result.stderr.splitlines()[-1]
    # the third step if the second had volume 2, else the fourth
    assert re.search(
        r"FloatingPointError: iteration [23]: the input is .* first, on ranks 0, 1, with volume", last_words
    )
    assert "The last good checkpoint is" in last_words

    last = newest_checkpoint(folder)
    assert last is not None
    assert last.name == "model_phase0.torch"
    assert not list(folder.glob("model_iteration*"))
    assert all(value.isfinite().all() for value in read_checkpoint(last).trunk.values())

    for rank in range(2):
        path = folder / f"capture_rank{rank}.pt"
        assert torch.load(path, weights_only=True)["rank"] == rank
        assert cli.main(["replay", str(path)]) == 0
        assert "not finite first: the input: view 0, rows [0, 1] of the batch" in capsys.readouterr().out
