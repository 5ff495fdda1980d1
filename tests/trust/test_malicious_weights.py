"""A weights file or checkpoint with a command in it, given to every door that takes one: the command never runs.

Each message names the file and says what to do. That the traps are armed is the first test.
"""

from __future__ import annotations

import contextlib
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

from vissl_jointssl import load_pretrained
from vissl_jointssl.checkpoints import CheckpointError, read_checkpoint
from vissl_jointssl.checkpoints.importing import import_resnet50, load_weights
from vissl_jointssl.cli import main
from vissl_jointssl.evaluation.initialisation import read_initialisation
from vissl_jointssl.evaluation.training_loop import STATE_FILE, fit
from vissl_jointssl.export.registry import TARGETS
from vissl_jointssl.plugin.config import prepare
from vissl_jointssl.plugin.config_faults import ConfigError
from vissl_jointssl.plugin.launch import compose

# isort: split
from vissl.utils.checkpoint import CheckpointLoader
from vissl.utils.cluster_utils import ClusterAssignmentLoader
from vissl.utils.hydra_config import convert_to_attrdict

FORMS = ("zip", "legacy", "tar", "pickle")  # see conftest.py
NEXT_STEPS = ("expected", "copy it again", "import FILE", "save its state_dict()", "not a PyTorch checkpoint", "delete")


@pytest.mark.parametrize("form", FORMS)
def test_each_trap_is_armed(form: str, trap, write_trap: Callable[[Path, str], Path], tmp_path: Path) -> None:
    path = write_trap(tmp_path / "x.torch", form)
    with contextlib.suppress(Exception):  # the command runs before the rest of a tar turns out to be none
        pickle.loads(path.read_bytes()) if form == "pickle" else torch.load(path, weights_only=False)  # noqa: S301
    assert trap.sprung


def _initialisation(path: Path) -> object:
    return read_initialisation("stage3", path)


def _state_of_an_evaluation(path: Path) -> object:
    path.rename(path.with_name(STATE_FILE))
    return fit(lambda epoch: 0.0, 1, {}, path.parent, 0, lambda what, done, total: None)


def _every_export(path: Path) -> object:
    for target in sorted(TARGETS)[:-1]:
        with pytest.raises(CheckpointError):
            TARGETS[target](path, path.with_name("out.pth"))
    return TARGETS[sorted(TARGETS)[-1]](path, path.with_name("out.pth"))


DOORS: dict[str, Callable[[Path], object]] = {
    "read_checkpoint": read_checkpoint,
    "import_resnet50": import_resnet50,
    "load_weights": load_weights,
    "load_pretrained": load_pretrained,
    "load_pretrained_partly": lambda path: load_pretrained(path, allow_partial=True),
    "evaluate_start": _initialisation,
    "evaluate_state": _state_of_an_evaluation,
    "export": _every_export,
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("door", DOORS)
def test_no_reader_of_ours_runs_it(
    door: str, form: str, trap, write_trap: Callable[[Path, str], Path], tmp_path: Path
) -> None:
    path = write_trap(tmp_path / "model_final_checkpoint_phase9.torch", form)
    with pytest.raises(CheckpointError) as caught:
        DOORS[door](path)
    assert not trap.sprung
    message = str(caught.value)
    assert (STATE_FILE if door == "evaluate_state" else path.name) in message
    assert any(step in message for step in NEXT_STEPS), message


@pytest.mark.parametrize("verb", ["export", "import", "evaluate"])
def test_a_verb_ends_with_one_line_that_names_the_file(
    verb: str, trap, write_trap, tiny_manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_trap(tmp_path / "weights.torch", "zip")
    plan = tmp_path / "plan.yaml"
    plan.write_text(yaml.safe_dump({"name": "x", "task": "probe", "manifest": str(tiny_manifest), "device": "cpu"}))
    command = {
        "export": ["export", str(path), "--out", str(tmp_path / "out.pth")],
        "import": ["import", str(path), "--out", str(tmp_path / "stage0.torch")],
        "evaluate": ["evaluate", str(plan), f"weights=[start={path}]", f"out={tmp_path / 'out'}"],
    }[verb]
    assert main(command) == 1
    assert not trap.sprung
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith(f"jointssl {verb}: ")]
    assert path.name in line
    assert "refused, because it" in line


@pytest.mark.parametrize("form", FORMS)
def test_a_stage_does_not_start_from_it(
    form: str, trap, write_trap: Callable[[Path, str], Path], tiny_manifest: Path, tmp_path: Path
) -> None:
    path = write_trap(tmp_path / "stage1.torch", form)
    overrides = [
        "config=jointssl/stage2_swav",
        f"config.CHECKPOINT.DIR='{tmp_path}'",
        f"config.DATA.TRAIN.DATA_PATHS=['{tiny_manifest}']",
        f"config.MODEL.WEIGHTS_INIT.PARAMS_FILE='{path}'",
    ]
    _, config = convert_to_attrdict(compose(overrides), dump_config=False)
    with pytest.raises(ConfigError, match=r"config\.MODEL\.WEIGHTS_INIT\.PARAMS_FILE: .*stage1\.torch: "):
        prepare(config)
    assert not trap.sprung


# --- VISSL's own loaders, where our runs call them


@pytest.mark.parametrize("form", FORMS)
def test_vissl_neither_resumes_nor_starts_from_it(
    form: str,
    trap,
    write_trap: Callable[[Path, str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")  # stock VISSL's would run it
    path = write_trap(tmp_path / "checkpoint.torch", form)
    words = r"checkpoint\.torch: .*(?i:weights.only).*; (expected a training checkpoint|copy it again)"
    with pytest.raises(CheckpointError, match=words):
        CheckpointLoader.load_and_broadcast_checkpoint(str(tmp_path), str(path), torch.device("cpu"))
    with pytest.raises(CheckpointError, match=words):
        CheckpointLoader.load_and_broadcast_init_weights(str(path), torch.device("cpu"))
    assert not trap.sprung


def test_a_shard_that_a_checkpoint_names_is_held_to_the_same(
    trap, write_trap: Callable[[Path, str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setenv("RANK", "0")
    write_trap(tmp_path / "shard0.torch", "zip")
    torch.save({"type": "shard_list", "shards": ["shard0.torch"]}, tmp_path / "checkpoint.torch")
    with pytest.raises(CheckpointError, match=r"shard0\.torch: refused, .*Weights only load failed"):
        CheckpointLoader.load_and_broadcast_checkpoint(
            str(tmp_path), str(tmp_path / "checkpoint.torch"), torch.device("cpu")
        )
    assert not trap.sprung


@pytest.mark.parametrize("form", FORMS)
def test_cluster_assignments_are_held_to_the_same(
    form: str, trap, write_trap: Callable[[Path, str], Path], tmp_path: Path
) -> None:
    path = write_trap(tmp_path / "cluster_assignments.torch", form)
    with pytest.raises((pickle.UnpicklingError, RuntimeError), match=r"(?i)weights.only"):
        ClusterAssignmentLoader.load_cluster_assigment(str(path))
    assert not trap.sprung


def test_the_switch_that_would_let_vissl_run_it_stops_a_run(config_with, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    with pytest.raises(ConfigError, match=r"TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD is set, .* can run code; unset it"):
        config_with()
