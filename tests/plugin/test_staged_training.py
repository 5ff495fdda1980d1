"""The hook that watches over hand-overs and over what must not move."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from vissl_jointssl.checkpoints import CheckpointError, StageRecord
from vissl_jointssl.plugin.hooks.staged_training import StagedTrainingHook, frozen_state

RECORD = StageRecord(stage=2, flavour="swav", parent="a" * 64, parent_stage=1, manifest="m")


def _trunk() -> nn.Module:
    torch.manual_seed(0)
    trunk = nn.ModuleDict(
        {"_feature_blocks": nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)), "new": nn.Linear(2, 2)}
    )
    trunk["_feature_blocks"].requires_grad_(False)
    return trunk


def _save(trunk: dict[str, torch.Tensor], path: Path) -> Path:
    state = {"base_model": {"model": {"trunk": trunk, "heads": {}}, "meta": {}}, "hooks": {}, "train_phase_idx": 0}
    torch.save({"classy_state_dict": state, "iteration": 1}, path)
    return path


def _task(trunk: nn.Module, checkpoint: Any = None) -> SimpleNamespace:
    return SimpleNamespace(
        base_model=SimpleNamespace(trunk=trunk), checkpoint=checkpoint, checkpoint_path="runs/model_phase0.torch"
    )


def _inherited(trunk: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in trunk.state_dict().items() if name.startswith("_feature_blocks")}


def test_the_account_says_what_was_taken_over_and_what_is_new(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    trunk = _trunk()
    parent = _save({**_inherited(trunk), "mask_token": torch.ones(2)}, tmp_path / "model_final_checkpoint_phase0.torch")
    with caplog.at_level(logging.INFO):
        StagedTrainingHook(RECORD, parent).on_start(_task(trunk))
    assert "7 tensors taken over, 2 new (new), 1 left behind (mask_token)" in caplog.text
    assert "7 tensors of f_intra are frozen" in caplog.text


def test_a_weight_that_did_not_arrive_stops_the_run(tmp_path: Path) -> None:
    trunk = _trunk()
    theirs = _inherited(trunk)
    theirs["_feature_blocks.0.weight"] += 1e-6
    parent = _save(theirs, tmp_path / "model_final_checkpoint_phase0.torch")
    with pytest.raises(
        CheckpointError, match=r"1 weights did not arrive in the model, first _feature_blocks\.0\.weight"
    ):
        StagedTrainingHook(RECORD, parent).on_start(_task(trunk))


@pytest.mark.parametrize("name", ["_feature_blocks.0.bias", "_feature_blocks.1.running_mean"])
def test_a_frozen_weight_or_statistic_that_moved_is_found(name: str) -> None:
    trunk = _trunk()
    hook = StagedTrainingHook(RECORD, None)
    hook.on_start(_task(trunk))
    hook.on_phase_end(_task(trunk))
    trunk.state_dict()[name].add_(1e-7)
    with pytest.raises(RuntimeError, match=f"stage 2 moved 1 frozen tensors, first {name}"):
        hook.on_phase_end(_task(trunk))


def test_what_trains_may_move() -> None:
    trunk = _trunk()
    hook = StagedTrainingHook(RECORD, None)
    hook.on_start(_task(trunk))
    trunk.state_dict()["new.weight"].add_(1)
    hook.on_phase_end(_task(trunk))
    assert not any(name.startswith("new") for name in frozen_state(trunk))


def test_resuming_another_stages_folder_is_refused() -> None:
    other = StageRecord(stage=3, flavour="swav")
    checkpoint = {"classy_state_dict": {"hooks": {"StagedTrainingHook": {"record": other.to_dict()}}}}
    with pytest.raises(CheckpointError, match=r"written by stage 3 \(swav\), but this run is stage 2 \(swav\)"):
        StagedTrainingHook(RECORD, None).on_start(_task(_trunk(), checkpoint))


def test_resuming_from_a_checkpoint_without_record_is_refused() -> None:
    with pytest.raises(CheckpointError, match=r"no stage of ours wrote; choose an empty config\.CHECKPOINT\.DIR"):
        StagedTrainingHook(RECORD, None).on_start(_task(_trunk(), {"classy_state_dict": {"hooks": {}}}))


def test_a_manifest_that_changed_since_is_reported_on_resume(caplog: pytest.LogCaptureFixture) -> None:
    before = StageRecord(stage=2, flavour="swav", parent="b" * 64, manifest="another")
    checkpoint = {"classy_state_dict": {"hooks": {"StagedTrainingHook": {"record": before.to_dict()}}}}
    hook = StagedTrainingHook(RECORD, None)
    hook.on_start(_task(_trunk(), checkpoint))
    assert "the manifest has changed" in caplog.text
    assert hook.state.record["parent"] == "b" * 64
