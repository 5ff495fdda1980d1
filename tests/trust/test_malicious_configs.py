"""Configs are data: no YAML tag, `_target_`, name or path in one runs anything or imports a module."""

from __future__ import annotations

import json
import pickle
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from vissl_jointssl.cli import main
from vissl_jointssl.evaluation.plan import PlanError, read_plan
from vissl_jointssl.evaluation.suite import SuiteError, is_suite, read_suite
from vissl_jointssl.evaluation.tasks import build_task
from vissl_jointssl.export.account import ExportError
from vissl_jointssl.export.registry import find_target
from vissl_jointssl.export.training_config import read_training_config
from vissl_jointssl.manifest import ManifestError, read_manifest
from vissl_jointssl.plugin.config_faults import ConfigError
from vissl_jointssl.plugin.launch import compose, read_config
from vissl_jointssl.training.recipe import RecipeError, read_recipe

# isort: split
from vissl.engines.engine_registry import get_engine

SENTINEL = "sentinel_of_the_trust_tests"


@pytest.fixture
def tagged(trap, tmp_path: Path) -> Path:
    """A YAML whose tags call a function, as `yaml.load` with the unsafe loader would."""
    path = tmp_path / "tagged.yaml"
    path.write_text(f"name: x\nrun: !!python/object/apply:os.system [\"touch '{trap.mark}'\"]\n")
    return path


@pytest.fixture
def sentinel(trap, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module whose import leaves the mark."""
    (tmp_path / f"{SENTINEL}.py").write_text(f"open({str(trap.mark)!r}, 'w').close()\ndef run(*args, **words): pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    return f"{SENTINEL}.run"


# --- tags


@pytest.mark.parametrize(
    ("read", "error"), [(read_recipe, RecipeError), (read_plan, PlanError), (read_suite, SuiteError)]
)
def test_a_tag_in_a_yaml_of_ours_is_an_error_that_names_the_file(
    read: Callable[[Path], object], error: type[ValueError], tagged: Path, trap
) -> None:
    with pytest.raises(error, match=r"tagged\.yaml: cannot be read as YAML \(could not determine a constructor"):
        read(tagged)
    assert not is_suite(tagged)
    assert not trap.sprung


def test_a_tag_on_the_command_line_is_not_built(trap, tmp_path: Path) -> None:
    plan = tmp_path / "plan.yaml"
    plan.write_text("{name: x, task: probe, manifest: m.csv, weights: [scratch]}")
    with pytest.raises(PlanError, match="is not YAML"):
        read_plan(plan, [f"seeds=!!python/object/apply:os.system [touch '{trap.mark}']"])
    assert not trap.sprung


def test_a_tag_in_a_vissl_config_is_not_built(
    tagged: Path, trap, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "configs" / "config"
    folder.mkdir(parents=True)
    tagged.rename(folder / "tagged.yaml")
    monkeypatch.chdir(tmp_path)  # VISSL searches the working directory's configs first
    with pytest.raises(Exception, match=r"could not determine a constructor .*python/object(.|\n)*tagged\.yaml"):
        compose(["config=tagged"])
    assert not trap.sprung


def test_a_tag_in_a_configuration_beside_a_checkpoint_is_not_built(tagged: Path, trap, tmp_path: Path) -> None:
    tagged.rename(tmp_path / "train_config.yaml")
    with pytest.raises(ExportError, match=r"train_config\.yaml"):
        read_training_config(tmp_path / "model_final_checkpoint_phase0.torch")
    assert not trap.sprung


# --- `_target_`


@pytest.mark.parametrize(
    ("override", "place"),
    [
        ("+config._target_", r"config\._target_ is read by nothing"),
        ("+config.MODEL.TRUNK._target_", r"config\.MODEL\.TRUNK\._target_ is read by nothing"),
        ("+config.JOINT_SSL._target_", r"JOINT_SSL\._target_ is read by nothing"),
        ("+config.LOSS.swav_loss._target_", r"config\.LOSS\.swav_loss\._target_ is read by nothing"),
        ("+config.DATA.TRAIN.TRANSFORMS.0._target_", r"TRANSFORMS\.0, ImgPilToMultiCrop: '_target_' is read by"),
        ("+config.DATA.TRAIN.COLLATE_FUNCTION_PARAMS._target_", r"multicrop_collator: '_target_' is read by nothing"),
    ],
)
def test_a_target_is_an_unknown_key(override: str, place: str, config_with: Callable[..., object], sentinel: str, trap):
    with pytest.raises(ConfigError, match=place):
        config_with(f"{override}={sentinel}")
    assert not trap.sprung
    assert SENTINEL not in sys.modules


# --- names

HEADS = "config.MODEL.HEAD.PARAMS=[[{name},{{dims: [2048,128]}}]]"
TRANSFORMS = "config.DATA.TRAIN.TRANSFORMS=[{{name: {name}}}]"
SCHEDULES = "config.OPTIMIZER.param_schedulers.lr.schedulers=[{{name: {name}}},{{name: cosine}}]"
NAMES = {  # override: the key in the message
    "config.MODEL.TRUNK.NAME={name}": "config.MODEL.TRUNK.NAME",
    "config.MODEL.BASE_MODEL_NAME={name}": "config.MODEL.BASE_MODEL_NAME",
    HEADS: "config.MODEL.HEAD.PARAMS.0",
    "config.LOSS.name={name}": "config.LOSS.name",
    "config.OPTIMIZER.name={name}": "config.OPTIMIZER.name",
    "config.OPTIMIZER.param_schedulers.lr.name={name}": "config.OPTIMIZER.param_schedulers.lr.name",
    SCHEDULES: "config.OPTIMIZER.param_schedulers.lr.schedulers.0.name",
    "config.TRAINER.TRAIN_STEP_NAME={name}": "config.TRAINER.TRAIN_STEP_NAME",
    "config.TRAINER.TASK_NAME={name}": "config.TRAINER.TASK_NAME",
    "config.METERS.name={name}": "config.METERS.name",
    TRANSFORMS: "config.DATA.TRAIN.TRANSFORMS.0.name",
    "config.DATA.TRAIN.DATA_SOURCES=[{name}]": "config.DATA.TRAIN.DATA_SOURCES",
    "config.DATA.TRAIN.LABEL_SOURCES=[{name}]": "config.DATA.TRAIN.LABEL_SOURCES",
    "config.DATA.TRAIN.COLLATE_FUNCTION={name}": "config.DATA.TRAIN.COLLATE_FUNCTION",
}


@pytest.mark.parametrize("override", NAMES)
def test_a_name_is_looked_up_in_its_registry_and_nowhere_else(
    override: str, config_with: Callable[..., object], sentinel: str, trap
) -> None:
    with pytest.raises(ConfigError) as caught:
        config_with(override.format(name=sentinel))
    message = str(caught.value)
    assert f"{NAMES[override]} is {sentinel!r}, which is not registered; " in message, message
    assert not trap.sprung
    assert SENTINEL not in sys.modules


@pytest.mark.parametrize(
    ("override", "nearest"),
    [
        ("config.MODEL.TRUNK.NAME=os.system", "config.MODEL.TRUNK.NAME is 'os.system', which is not registered; "),
        ("config.LOSS.name=builtins.eval", "config.LOSS.name is 'builtins.eval', which is not registered; "),
        ("config.MODEL.TRUNK.NAME=resnett", "did you mean resnet?"),
        ("config.LOSS.name=swav_los", "did you mean swav_loss?"),
        ("config.OPTIMIZER.name=sdg", "did you mean sgd?"),
        ("config.DATA.TRAIN.TRANSFORMS=[{name: ToTenser}]", "did you mean ToTensor?"),
        ("config.DATA.TRAIN.DATA_SOURCES=[slice_data]", "did you mean slice_dataset?"),
        ("config.MODEL.HEAD.PARAMS=[[swav_hed,{dims: [2048]}]]", "did you mean swav_head?"),
    ],
)
def test_a_misspelt_name_is_answered_with_the_nearest(
    override: str, nearest: str, config_with: Callable[..., object]
) -> None:
    with pytest.raises(ConfigError) as caught:
        config_with(override)
    assert nearest in str(caught.value)


def test_an_engine_a_task_and_a_target_are_looked_up_and_not_imported(sentinel: str, trap) -> None:
    with pytest.raises(ValueError, match="Unknown engine name"):
        get_engine(sentinel)
    with pytest.raises(PlanError, match=f"no task is called '{SENTINEL}"):
        build_task(sentinel, {})
    with pytest.raises(ExportError, match=SENTINEL):
        find_target(sentinel)
    assert SENTINEL not in sys.modules
    assert not trap.sprung


def test_a_record_in_a_checkpoint_names_parts_and_imports_none(sentinel: str, trap, tmp_path: Path) -> None:
    from vissl_jointssl import load_pretrained
    from vissl_jointssl.checkpoints import CheckpointError

    record = {"stage": 3, "flavour": "swav", "levels": ["res5"], "embedding_width": 16}
    record |= {"slice_embedding_width": 2048, "volume_encoder": {"attention_axis": sentinel}, "_target_": sentinel}
    for text in (record, {key: value for key, value in record.items() if key != "_target_"}):
        hooks = {"StagedTrainingHook": {"record": text}}
        model = {"model": {"trunk": {"_feature_blocks.conv1.weight": torch.ones(1)}, "heads": {}}}
        path = tmp_path / "model_final_checkpoint_phase0.torch"
        torch.save({"classy_state_dict": {"base_model": model, "hooks": hooks}}, path)
        with pytest.raises((CheckpointError, ExportError, ValueError), match=r"_target_|attention_axis|axis"):
            load_pretrained(path, model="volume")
    assert SENTINEL not in sys.modules
    assert not trap.sprung


# --- files that VISSL would unpickle


def test_label_files_and_pickled_lists_are_refused_before_vissl_opens_them(
    config_with: Callable[..., object], trap, tmp_path: Path
) -> None:
    (tmp_path / "list.pkl").write_bytes(pickle.dumps(trap))
    np.save(tmp_path / "labels.npy", np.array([trap], dtype=object), allow_pickle=True)
    with pytest.raises(ConfigError) as caught:
        config_with(
            "config.DATA.TRAIN.DATA_SOURCES=[disk_filelist]",
            f"config.DATA.TRAIN.DATA_PATHS=['{tmp_path}/list.pkl']",
            "config.DATA.TRAIN.LABEL_SOURCES=[disk_filelist]",
            f"config.DATA.TRAIN.LABEL_PATHS=['{tmp_path}/labels.npy']",
        )
    message = str(caught.value)
    assert "list.pkl; VISSL unpickles it, which can run code: save the list as .npy" in message
    assert "config.DATA.TRAIN.LABEL_SOURCES is ['disk_filelist']; VISSL unpickles label files" in message
    assert not trap.sprung


def test_a_pickle_is_no_manifest(trap, tmp_path: Path) -> None:
    (tmp_path / "manifest.csv").write_bytes(pickle.dumps(trap))
    with pytest.raises(ManifestError, match=r"manifest\.csv"):
        read_manifest(tmp_path / "manifest.csv")
    assert not trap.sprung


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_a_pickle_among_the_scans_is_reported_and_not_opened(suffix: str, trap, tmp_path: Path) -> None:
    scans, out, report = tmp_path / "scans", tmp_path / "data", tmp_path / "report.json"
    scans.mkdir()
    objects = np.array([[[trap]]], dtype=object)
    if suffix == ".npy":
        np.save(scans / "a.npy", objects, allow_pickle=True)
    else:
        np.savez(scans / "a.npz", volume=objects)
    main(["doctor", str(scans), "--json", str(report), "--jobs", "1"])
    assert "pickled" in json.dumps(json.loads(report.read_text()))
    assert main(["prepare", str(scans), "--out", str(out), "--jobs", "1"]) == 1
    assert not trap.sprung


def test_features_kept_by_an_evaluation_are_numbers_or_an_error(trap, tmp_path: Path) -> None:
    from vissl_jointssl.evaluation.frozen_features import _kept

    path = tmp_path / "features_train_0.npy"
    np.save(path, np.array([trap], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"features_train_0\.npy: not the features of an earlier run .*; delete it"):
        _kept(path)
    assert not trap.sprung


# --- the network


@pytest.mark.parametrize(
    "override",
    [
        "config.MODEL.WEIGHTS_INIT.PARAMS_FILE=https://example.org/weights.torch",
        "config.DATA.TRAIN.DATA_PATHS=['https://example.org/manifest.csv']",
        "config.CHECKPOINT.DIR=s3://bucket/run",
    ],
)
def test_an_address_is_refused_before_vissl_fetches_it(
    override: str, config_with: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetched(url: str, cache_dir: str) -> str:
        raise AssertionError(f"{url} was fetched")

    monkeypatch.setattr("vissl.utils.io.cache_url", fetched)
    with pytest.raises(ConfigError, match=r"nothing is fetched from a network here: give a path on"):
        config_with(override)


def test_a_misspelt_section_of_ours_is_no_stock_run() -> None:
    with pytest.raises(ConfigError, match=r"config\.JOINT_SLL is read by nothing; did you mean JOINT_SSL\?"):
        read_config(["config=pretrain/simclr/simclr_8node_resnet", "+config.JOINT_SLL.STAGE=1"])
