"""What `jointssl train` does about each stage, and what it refuses."""

from __future__ import annotations

import fcntl
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from vissl_jointssl import cli
from vissl_jointssl.checkpoints import RECORD_HOOK, StageRecord
from vissl_jointssl.training import Recipe, RecipeError, Stage, announce, machine_overrides, plan, train
from vissl_jointssl.training.chain import stage_overrides


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    manifest = tmp_path / "manifest.csv"
    manifest.write_text("id\n")
    stages = (Stage("jointssl/stage1_swav"), Stage("jointssl/stage2_swav"))
    return Recipe(run=tmp_path / "run", manifests=(manifest,), stages=stages, device="cpu")


def _leave(recipe: Recipe, position: int, name: str, parent: str | None = None) -> Path:
    """What a stage leaves: its settings and a checkpoint."""
    folder = recipe.folder(position)
    folder.mkdir(parents=True, exist_ok=True)
    settings = {
        "config": recipe.stages[position].config,
        "overrides": [*recipe.overrides, *recipe.stages[position].overrides],
        "manifest": str(recipe.manifests[0]),
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    record = StageRecord(stage=position + 1, flavour="swav", parent=parent)
    state = {
        "base_model": {"model": {"trunk": {"_feature_blocks.conv1.weight": torch.ones(1)}, "heads": {}}, "meta": {}},
        "hooks": {RECORD_HOOK: {"record": record.to_dict()}},
        "train_phase_idx": 0,
    }
    torch.save({"classy_state_dict": state, "iteration": 1}, folder / name)
    return folder / name


def test_a_new_run_starts_every_stage(recipe: Recipe) -> None:
    assert [item.state for item in plan(recipe)] == ["start", "start"]


def test_a_finished_stage_is_skipped_and_a_killed_one_goes_on(recipe: Recipe) -> None:
    _leave(recipe, 0, "model_final_checkpoint_phase1.torch")
    _leave(recipe, 1, "model_phase0.torch")
    assert [item.state for item in plan(recipe)] == ["finished", "resume"]


def test_a_stage_whose_parent_is_not_finished_is_refused(recipe: Recipe) -> None:
    _leave(recipe, 1, "model_phase0.torch")
    with pytest.raises(RecipeError, match=r"stage2 has checkpoints, but .*stage1, which it starts from, is not"):
        plan(recipe)


def test_a_stage_that_came_from_another_parent_is_refused(recipe: Recipe) -> None:
    _leave(recipe, 0, "model_final_checkpoint_phase1.torch")
    _leave(recipe, 1, "model_phase0.torch", parent="0" * 64)
    with pytest.raises(RecipeError, match="which has been trained anew since; delete"):
        train(recipe, say=lambda line: None)


def test_settings_that_changed_are_shown_before_and_after(recipe: Recipe, tmp_path: Path) -> None:
    _leave(recipe, 0, "model_final_checkpoint_phase1.torch")
    other = Recipe(recipe.run, (tmp_path / "other.csv",), recipe.stages, "cpu")
    with pytest.raises(RecipeError, match=r"other settings \(manifest was .*manifest\.csv' and is now .*other\.csv'\)"):
        plan(other)


def test_a_missing_manifest_names_the_command_that_makes_one(recipe: Recipe) -> None:
    recipe.manifests[0].unlink()
    with pytest.raises(RecipeError, match=r"manifest\.csv does not exist; `jointssl prepare` writes one"):
        train(recipe, say=lambda line: None)


def test_every_manifest_of_a_stage_reaches_its_engine(recipe: Recipe) -> None:
    stages = (Stage("jointssl/stage1_swav", more_manifests=(Path("x_rays.csv"),)), Stage("jointssl/stage2_swav"))
    several = replace(recipe, manifests=(Path("a.csv"), Path("b.csv")), stages=stages)
    first, second = plan(several)
    assert "config.DATA.TRAIN.DATA_PATHS=['a.csv','b.csv','x_rays.csv']" in stage_overrides(several, first, None)
    assert "config.DATA.TRAIN.DATA_PATHS=['a.csv','b.csv']" in stage_overrides(several, second, None)
    with pytest.raises(RecipeError, match=r"manifest a\.csv, b\.csv, x_rays\.csv does not exist"):
        train(several, say=lambda line: None)


def test_a_stage_3_that_follows_stage_1_has_a_folder_of_its_own_name(recipe: Recipe) -> None:
    stages = (recipe.stages[0], Stage("jointssl/ablations/without_mask_prediction_swav", folder="stage3"))
    skipping = replace(recipe, stages=stages)
    first, second = plan(skipping)
    assert (first.folder.name, second.folder.name) == ("stage1", "stage3")
    said: list[str] = []
    announce(skipping, [first, second], said.append)
    assert "starts from" in said[2]
    assert said[2].endswith("stage1's last checkpoint -> " + str(skipping.run / "stage3"))


def test_two_runs_in_one_folder_are_refused(recipe: Recipe) -> None:
    recipe.run.mkdir()
    with (recipe.run / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(RecipeError, match="another process is training here"):
            train(recipe, say=lambda line: None)


def test_a_stage_that_fails_ends_with_its_cause_and_its_log(recipe: Recipe) -> None:
    said: list[str] = []
    with pytest.raises(RecipeError, match=r"stage 1 of 2 failed \(exit 1\): the config has") as caught:
        train(recipe, say=said.append)  # the manifest is a fake without columns
    assert "manifest.csv" in str(caught.value)
    assert "launch.log" in str(caught.value)
    assert "starts from prepared data" in said[1]


def test_on_cpu_everything_a_gpu_needs_is_off(recipe: Recipe) -> None:
    overrides = machine_overrides(recipe)
    assert "config.MACHINE.DEVICE=cpu" in overrides
    assert "config.DISTRIBUTED.BACKEND=gloo" in overrides
    assert "config.DISTRIBUTED.NUM_PROC_PER_NODE=1" in overrides


def test_a_gpu_that_is_not_there_is_an_error(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(RecipeError, match="device is gpu, but PyTorch sees none; give device=cpu"):
        machine_overrides(Recipe(recipe.run, recipe.manifests, recipe.stages, "gpu"))


def test_the_command_explains_an_error_in_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert cli.main(["train", str(tmp_path / "absent.yaml")]) == 1
    shown = capsys.readouterr().err
    assert shown.startswith("jointssl train: ")
    assert shown.count("\n") == 1


def test_an_unknown_verb_lists_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["trian"])
    assert ", ".join(cli.VERBS) in capsys.readouterr().err.replace("'", "")
