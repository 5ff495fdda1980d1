"""The three stages end to end through VISSL's engine, on two gloo ranks, each stage killed once and resumed."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torchvision.models import resnet50

from vissl_jointssl.checkpoints import Checkpoint, newest_checkpoint, read_checkpoint, sha256
from vissl_jointssl.manifest import read_manifest


def _last(run: Path, stage: int) -> Checkpoint:
    path = newest_checkpoint(run / f"stage{stage}")
    assert path is not None
    return read_checkpoint(path)


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_each_stage_goes_on_where_it_was_killed(trained: Path, stage: int) -> None:
    log = (trained / f"stage{stage}" / "launch.log").read_text()
    assert "Resume from file" in log or "Loaded loss state from checkpoint" in log
    epochs = [json.loads(line)["train_phase_idx"] for line in (trained / f"stage{stage}" / "metrics.json").open()]
    lines = [json.loads(line) for line in (trained / f"stage{stage}" / "stdout.json").open()]
    resumed = [line["ep"] for line in lines]
    assert resumed[-1] == 1
    assert resumed.count(0) < len(resumed)
    assert epochs == sorted(epochs)
    assert all(np.isfinite(line["loss"]) for line in lines)


def test_every_checkpoint_says_where_it_comes_from(trained: Path) -> None:
    records = [_last(trained, stage).record for stage in (1, 2, 3)]
    assert all(record is not None for record in records)
    assert [record.stage for record in records] == [1, 2, 3]
    assert records[0].parent is None
    for stage in (2, 3):
        parent = newest_checkpoint(trained / f"stage{stage - 1}")
        assert parent is not None
        assert records[stage - 1].parent == sha256(parent)


def test_stage_2_moves_no_bit_of_the_resnet_and_stage_3_moves_it(trained: Path) -> None:
    one, two, three = (_last(trained, stage).trunk for stage in (1, 2, 3))
    shared = [name for name in one if name.startswith("_feature_blocks.") and "num_batches" not in name]
    assert len(shared) > 200
    assert all(torch.equal(one[name], two[name]) for name in shared)
    moved = [name for name in shared if not torch.equal(two[name], three[name])]
    assert len(moved) > 0.9 * len(shared)


def test_stage_3_hands_on_what_stage_2_learned_but_not_its_mask(trained: Path) -> None:
    two, three = _last(trained, 2), _last(trained, 3)
    assert "mask_token" in two.trunk
    assert set(three.trunk) == set(two.trunk) - {"mask_token"}
    prototypes = three.heads["0.prototypes0.weight"]
    torch.testing.assert_close(prototypes.norm(dim=1), torch.ones(5), atol=1e-4, rtol=0)


def test_a_finished_run_is_skipped_within_seconds(
    trained: Path, recipe: Path, start_training: Callable[[Path], subprocess.Popen[str]]
) -> None:
    began = time.monotonic()
    process = start_training(recipe)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    assert output.count("finished, skipped") == 3
    assert time.monotonic() - began < 30


def test_a_changed_setting_is_refused_instead_of_mixed_in(
    trained: Path, recipe: Path, start_training: Callable[[Path], subprocess.Popen[str]]
) -> None:
    content = yaml.safe_load(recipe.read_text())
    content["stages"][1]["overrides"].append("config.SEED_VALUE=3")
    changed = recipe.with_name("changed.yaml")
    changed.write_text(yaml.safe_dump(content))
    process = start_training(changed)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "stage2 was made with other settings (overrides was" in output


def _evaluate(
    engine: Callable[..., subprocess.CompletedProcess[str]], name: str, trained: Path, manifest: Path, *more: str
) -> Path:
    out = trained / name
    result = engine(
        f"config=jointssl/{name}",
        "config.MACHINE.DEVICE=cpu",
        "config.DATA.NUM_DATALOADER_WORKERS=0",
        f"config.DATA.TRAIN.DATA_PATHS=['{manifest}']",
        f"config.DATA.TEST.DATA_PATHS=['{manifest}']",
        f"config.MODEL.WEIGHTS_INIT.PARAMS_FILE='{newest_checkpoint(trained / 'stage3')}'",
        f"config.CHECKPOINT.DIR='{out}'",
        *more,
    )
    assert result.returncode == 0, result.stderr
    return out


VOLUME_SIZES = [
    f"config.DATA.{split}.TRANSFORMS.0.{value}"
    for split in ("TRAIN", "TEST")
    for value in ("size=[32,32]", "num_slices=6")
]
SLICE_SIZES = [f"config.DATA.{split}.TRANSFORMS.{item}.size=32" for split in ("TRAIN", "TEST") for item in (0, 1)]


def test_vissls_extraction_gives_volume_embeddings(
    trained: Path, tiny_manifest: Path, engine: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    out = _evaluate(engine, "extract_volumes", trained, tiny_manifest, *VOLUME_SIZES)
    features = np.load(out / "rank0_chunk0_train_volume_features.npy")
    targets = np.load(out / "rank0_chunk0_train_volume_targets.npy")
    indices = np.load(out / "rank0_chunk0_train_volume_inds.npy")
    assert features.shape == (8, 640)
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(targets[:, 0], indices % 2)  # volume i has class i % 2


def test_vissls_extraction_gives_the_slice_embeddings_of_the_exported_resnet(
    trained: Path, tiny_manifest: Path, engine: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    out = _evaluate(engine, "extract_slices", trained, tiny_manifest, *SLICE_SIZES)
    features = np.load(out / "rank0_chunk0_test_res5avg_features.npy")
    indices = np.load(out / "rank0_chunk0_test_res5avg_inds.npy")
    exported = trained / "resnet50.pth"
    checkpoint = newest_checkpoint(trained / "stage3")
    result = subprocess.run(
        [
            sys.executable,
            "-m",
            "vissl_jointssl.cli",
            "export",
            str(checkpoint),
            "--to",
            "torchvision",
            "--out",
            str(exported),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    network = resnet50(weights=None)
    missing = network.load_state_dict(torch.load(exported, weights_only=True), strict=False)
    assert set(missing.missing_keys) == {"fc.weight", "fc.bias"}
    assert not missing.unexpected_keys
    network.fc = torch.nn.Identity()
    network.eval()
    slices = np.concatenate([np.load(tiny_manifest.parent / f"volume{index}.npy") for index in (8, 9)])
    levels = torch.from_numpy(np.rint(slices / 65535 * 255) / 255).float()
    with torch.no_grad():
        expected = network(((levels - 0.449) / 0.226)[:, None].expand(-1, 3, -1, -1))
    np.testing.assert_allclose(features.reshape(len(features), -1), expected[indices.ravel()], atol=1e-4)


def test_vissls_linear_evaluation_reports_the_accuracy_of_volumes(
    trained: Path, tiny_manifest: Path, engine: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    out = _evaluate(engine, "linear_volume", trained, tiny_manifest, *VOLUME_SIZES, "config.OPTIMIZER.num_epochs=1")
    metrics = [json.loads(line) for line in (out / "metrics.json").open()]
    accuracy = metrics[-1]["test_accuracy_list_meter"]["top_1"]["volume"]
    assert accuracy in (0.0, 50.0, 100.0)  # two test volumes


def test_nothing_that_training_leaves_names_a_patient_of_the_manifest(trained: Path, tiny_manifest: Path) -> None:
    patients = {entry.patient.encode() for entry in read_manifest(tiny_manifest).entries}
    left = [file for file in trained.rglob("*") if file.is_file()]
    assert {".torch", ".json", ".yaml"} <= {file.suffix for file in left}
    assert not [file for file in left if any(patient in file.read_bytes() for patient in patients)]
