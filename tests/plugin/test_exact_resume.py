"""2n steps are n steps, a resume and n steps, bit for bit: every stage and flavour under VISSL's engine.

The undisturbed run leaves checkpoints on its way. What a run that was killed right after one of them has is that file
alone, so it is put into a folder of its own and the same command goes on from there.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

SECONDS = 600
VOLUMES = [
    "config.DATA.TRAIN.TRANSFORMS.0.size=[32,32]",
    "config.DATA.TRAIN.TRANSFORMS.0.num_slices=6",
    "config.DATA.TRAIN.BATCHSIZE_PER_REPLICA=2",
]
SLICES = "config.DATA.TRAIN.BATCHSIZE_PER_REPLICA=7"
FROM_STAGE_1 = ["+config.JOINT_SSL.SKIP_STAGE_2=True", "+config.JOINT_SSL.MIXED_FLAVOURS=True"]
PROTOTYPES = [
    "config.MODEL.HEAD.PARAMS=[[swav_head,{dims:[640],use_bn:False,num_clusters:[5]}]]",
    "config.MODEL.TEMP_FROZEN_PARAMS_ITER_MAP=[[module.heads.0.prototypes0.weight,1]]",
    *FROM_STAGE_1,
]
CASES = {
    "stage1_swav": [
        SLICES,
        "config.DATA.TRAIN.TRANSFORMS.0.size_crops=[32,16]",
        "config.MODEL.TEMP_FROZEN_PARAMS_ITER_MAP=[[module.heads.0.prototypes0.weight,1]]",
        "config.LOSS.swav_loss.queue.queue_length=28",
        "config.LOSS.swav_loss.queue.start_iter=1",
    ],
    "stage1_deepclusterv2": [
        SLICES,
        "config.DATA.TRAIN.TRANSFORMS.0.size_crops=[32]",
        "config.LOSS.deepclusterv2_loss.num_clusters=[5,5,5]",
    ],
    "stage2_swav": VOLUMES,
    "stage3_swav": [*VOLUMES, *PROTOTYPES],
    "stage3_swav with a queue": [
        *VOLUMES,
        *PROTOTYPES,
        "config.LOSS.inter_swav_loss.queue_length=4",
        "config.LOSS.inter_swav_loss.queue_start_iter=1",
    ],
    "stage3_deepclusterv2": [*VOLUMES, *FROM_STAGE_1, "config.LOSS.inter_deepclusterv2_loss.num_clusters=[3,2]"],
}
STEPS = {"stage1": 6, "stage2": 4, "stage3": 4}  # of an epoch on one rank: 47 slices, 8 volumes
# Counts from one wherever an epoch begins, also where it begins anew; VISSL calls it useful for debugging.
NOT_THE_SAME = "iteration_num"

# Several runs in one process, because imports take longer than steps. Of each: overrides, or a file and the folder it
# is put into.
PROGRAM = """
import json, os, sys
from pathlib import Path
from vissl_jointssl.plugin.launch import main
import torch
if __name__ == "__main__":
    for item in json.loads(sys.argv[1]):
        if item[0].startswith("config="):
            main(item)
            if torch.distributed.is_initialized():
                torch.distributed.destroy_process_group()
        else:
            file, folder = map(Path, item)
            folder.mkdir()
            os.link(file, folder / file.name)
"""


def middle_of_the_second(case: str, ranks: int) -> int:
    """The iteration in the middle of the second epoch."""
    steps = STEPS[case[:6]] // ranks
    return steps + max(1, steps // 2)


@pytest.fixture
def command(tiny_manifest: Path, stage1_checkpoint: Path) -> Callable[..., list[str]]:
    """Overrides of a run of toy size: two epochs, and a checkpoint in the middle of the second."""

    def overrides(case: str, folder: Path, ranks: int, workers: int = 0, epochs: int = 2) -> list[str]:
        name = case.split()[0]
        given = [
            f"config=jointssl/{name}",
            f"config.DATA.TRAIN.DATA_PATHS=['{tiny_manifest}']",
            f"config.CHECKPOINT.DIR='{folder}'",
            "config.CHECKPOINT.CHECKPOINT_FREQUENCY=1",
            f"config.CHECKPOINT.CHECKPOINT_ITER_FREQUENCY={middle_of_the_second(case, ranks)}",
            f"config.OPTIMIZER.num_epochs={epochs}",
            f"config.DATA.NUM_DATALOADER_WORKERS={workers}",
            "config.MACHINE.DEVICE=cpu",
            "config.DISTRIBUTED.BACKEND=gloo",
            f"config.DISTRIBUTED.NUM_PROC_PER_NODE={ranks}",
            "config.LOG_FREQUENCY=1",
            *CASES[case],
        ]
        if not name.startswith("stage1"):
            given.append(f"config.MODEL.WEIGHTS_INIT.PARAMS_FILE='{stage1_checkpoint}'")
        return given

    return overrides


def run(items: list[list[str]], cwd: Path) -> str:
    """Do several things in one process; what it said."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(items)],
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        encoding="utf-8",
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def everything(folder: Path) -> dict[str, Any]:
    """All that a run's last checkpoint holds, by its place there."""
    (final,) = folder.glob("model_final*.torch")
    return dict(_leaves("", torch.load(final, map_location="cpu", weights_only=True)))


def _leaves(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, one in value.items():
            yield from _leaves(f"{name}/{key}", one)
    elif isinstance(value, list | tuple):
        for place, one in enumerate(value):
            yield from _leaves(f"{name}/{place}", one)
    else:
        yield name, value


def differences(folder: Path, other: Path) -> list[str]:
    """Where the last checkpoints of two runs are not the same, bit for bit."""
    mine, theirs = everything(folder), everything(other)
    assert len(mine) > 300
    names = [name for name in {*mine, *theirs} if not name.endswith(NOT_THE_SAME)]
    return sorted(name for name in names if not _same(mine.get(name), theirs.get(name)))


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return torch.equal(one, other)
    return type(one) is type(other) and one == other


def remove_checkpoints(folder: Path) -> None:
    """200 MB each, and pytest keeps the folders of three sessions."""
    for path in folder.rglob("model_*.torch"):
        path.unlink()


def undisturbed_and_resumed(
    command: Callable[..., list[str]], case: str, ranks: int, tmp_path: Path, *resumed: str
) -> tuple[dict[str, list[str]], str]:
    """What differs for each checkpoint that was resumed from, and what was said."""
    whole = tmp_path / "whole"
    items = [command(case, whole, ranks)]
    for name in resumed:
        items += [[str(whole / f"model_{name}.torch"), str(tmp_path / name)], command(case, tmp_path / name, ranks)]
    said = run(items, tmp_path)
    found = {name: differences(whole, tmp_path / name) for name in resumed}
    remove_checkpoints(tmp_path)
    return found, said


def test_a_stage_resumed_within_an_epoch_ends_as_it_would_have(command: Callable[..., Any], tmp_path: Path) -> None:
    found, said = undisturbed_and_resumed(command, "stage1_swav", 1, tmp_path, "iteration9")
    assert "Every rank takes back the state it had" in said
    assert found == {"iteration9": []}


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("case", CASES)
def test_every_stage_and_flavour_goes_on_bit_for_bit(
    case: str, ranks: int, command: Callable[..., Any], tmp_path: Path
) -> None:
    within = f"iteration{middle_of_the_second(case, ranks)}"
    found, said = undisturbed_and_resumed(command, case, ranks, tmp_path, "phase0", within)
    assert said.count("Every rank takes back the state it had") >= 2
    assert found == {"phase0": [], within: []}


@pytest.mark.slow
@pytest.mark.parametrize(
    "case", ["stage1_swav", "stage1_deepclusterv2", "stage3_swav with a queue", "stage3_deepclusterv2"]
)
def test_one_rank_two_and_one_again(case: str, command: Callable[..., Any], tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("one", "two", "again")]
    items = [command(case, folders[0], 1, epochs=3)]
    for epoch, ranks in ((0, 2), (1, 1)):
        file = folders[epoch] / f"model_phase{epoch}.torch"
        items += [[str(file), str(folders[epoch + 1])], command(case, folders[epoch + 1], ranks, epochs=3)]
    said = run(items, tmp_path)
    batch, steps = 7 if case.startswith("stage1") else 2, STEPS[case[:6]]
    assert f"Written by 1 ranks with {batch} samples a step, resumed by 2 with {batch}" in said
    assert f"Written by 2 ranks with {batch} samples a step, resumed by 1 with {batch}" in said
    for folder, expected in zip(folders, (3 * steps, 3 * steps // 2, 3 * steps), strict=True):
        logged = [json.loads(line) for line in (folder / "stdout.json").read_text().splitlines()]
        assert all(math.isfinite(line["loss"]) for line in logged)
        (final,) = folder.glob("model_final*.torch")
        content = torch.load(final, map_location="cpu", weights_only=True, mmap=True)
        assert content["iteration"] == expected
        assert content["classy_state_dict"]["num_updates"] == 3 * steps * batch
    remove_checkpoints(tmp_path)


@pytest.mark.slow
def test_the_number_of_workers_changes_nothing(command: Callable[..., Any], tmp_path: Path) -> None:
    folders = [tmp_path / "none", tmp_path / "two"]
    run([command("stage1_swav", folder, 1, workers) for folder, workers in zip(folders, (0, 2), strict=True)], tmp_path)
    assert differences(*folders) == []
    remove_checkpoints(tmp_path)
