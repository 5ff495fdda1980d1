"""VISSL's own way of writing checkpoints and of resuming from them goes through ours."""

from __future__ import annotations

import logging
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import vissl_jointssl.plugin
from vissl_jointssl.checkpoints import CheckpointWriteError, damage, sha256
from vissl_jointssl.plugin.compat.launching import _checkpoint_to_resume

# isort: split
from vissl.config import AttrDict
from vissl.utils.checkpoint import CheckpointWriter

assert vissl_jointssl.plugin  # it comes before VISSL


def _writer(folder: Path, mode_num: int, final: bool = False) -> CheckpointWriter:
    return CheckpointWriter(str(folder), is_final_train_phase=final, mode="phase", mode_num=mode_num, backend="disk")


def test_vissl_writes_whole_hashed_checkpoints_and_deletes_none(tmp_path: Path) -> None:
    link = tmp_path / "checkpoint.torch"
    for epoch in range(3):
        _writer(tmp_path, epoch, final=epoch == 2).save_consolidated_checkpoint({"epoch": epoch})
        name = f"model_{'final_checkpoint_' if epoch == 2 else ''}phase{epoch}.torch"
        assert torch.load(tmp_path / name) == {"epoch": epoch, "type": "consolidated"}
        assert (tmp_path / f"{name}.sha256").read_text() == f"{sha256(tmp_path / name)}  {name}\n"
        assert link.readlink() == Path(name)
    assert len(list(tmp_path.glob("model_*.torch"))) == 3


def test_vissl_writes_shards_of_which_each_is_whole(tmp_path: Path) -> None:
    for rank in (1, 0):
        _writer(tmp_path, 0).save_sharded_checkpoint({"rank": rank}, shard_rank=rank, world_size=2)
    for name in ("model_phase0.torch", "model_phase0_shard0.torch", "model_phase0_shard1.torch"):
        assert damage(tmp_path / name) is None
        assert (tmp_path / f"{name}.sha256").exists()


def test_a_checkpoint_that_does_not_fit_ends_the_run_with_the_last_good_one_named(tmp_path: Path) -> None:
    _writer(tmp_path, 0).save_consolidated_checkpoint({"weights": torch.ones(9)})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(CheckpointWriteError, match=r"model_phase1\.torch: .*, model_phase0\.torch, is intact"):
            _writer(tmp_path, 1).save_consolidated_checkpoint({"weights": torch.ones(99_999)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (tmp_path / "checkpoint.torch").readlink() == Path("model_phase0.torch")


# --- resuming


@pytest.fixture
def resumed(tmp_path: Path) -> Callable[..., str | None]:
    """The name of the checkpoint that a run with some options resumes from."""

    def resume(first_node: bool = True, joint_ssl: bool = False, **changes: Any) -> str | None:
        options = {
            "OVERWRITE_EXISTING": False,
            "AUTO_RESUME": True,
            "USE_SYMLINK_CHECKPOINT_FOR_RESUME": False,
            "LATEST_CHECKPOINT_RESUME_FILE_NUM": 1,
            "CHECKPOINT_ITER_FREQUENCY": -1,
            **changes,
        }
        config = AttrDict({"CHECKPOINT": options, **({"JOINT_SSL": {}} if joint_ssl else {})})
        found = _checkpoint_to_resume(config, str(tmp_path), first_node)
        return None if found is None else Path(found).relative_to(tmp_path).as_posix()

    return resume


def _leave(folder: Path, *names: str, iteration: int = 0) -> None:
    """A run's checkpoints, each trained further than the one before."""
    for number, name in enumerate(names):
        trunk = {"weight": torch.ones(1)}
        state = {"base_model": {"model": {"trunk": trunk, "heads": {}}}}
        torch.save({"classy_state_dict": state, "iteration": iteration + number}, folder / f"model_{name}.torch")


def test_a_resume_passes_over_what_is_damaged_and_only_the_first_node_moves_it(
    tmp_path: Path, resumed: Callable[..., str | None], caplog: pytest.LogCaptureFixture
) -> None:
    _leave(tmp_path, "phase0", "phase1")
    newest = tmp_path / "model_phase1.torch"
    newest.write_bytes(newest.read_bytes()[:300])
    with caplog.at_level(logging.INFO):
        assert resumed(first_node=False) == "model_phase0.torch"
        assert newest.exists()
        assert resumed() == "model_phase0.torch"
    assert not newest.exists()
    assert caplog.messages == [
        f"{newest} is damaged (its end is missing after 300 bytes); passing over it",
        f"Resume from file: {tmp_path}/model_phase0.torch",
        f"{newest} is damaged (its end is missing after 300 bytes); set aside as model_phase1.torch.damaged",
        f"Resume from file: {tmp_path}/model_phase0.torch",
    ]


def test_of_an_epochs_end_and_a_step_within_one_the_run_goes_on_from_the_further(
    tmp_path: Path, resumed: Callable[..., str | None]
) -> None:
    _leave(tmp_path, "phase0", "iteration1", "phase1")
    assert resumed(CHECKPOINT_ITER_FREQUENCY=1) == "model_phase1.torch"
    _leave(tmp_path, "iteration3", iteration=3)
    assert resumed(CHECKPOINT_ITER_FREQUENCY=1) == "model_iteration3.torch"
    assert resumed(joint_ssl=True) == "model_iteration3.torch"


def test_stock_vissls_checkpoint_of_an_output_that_was_not_finite_is_no_place_to_go_on_from(
    tmp_path: Path, resumed: Callable[..., str | None]
) -> None:
    _leave(tmp_path, "phase0", "iteration7")
    assert resumed() == "model_phase0.torch"


def test_vissls_options_of_resuming_keep_their_meaning(tmp_path: Path, resumed: Callable[..., str | None]) -> None:
    _leave(tmp_path, "phase0", "phase1", "final_checkpoint_phase2")
    assert resumed() == "model_final_checkpoint_phase2.torch"
    assert resumed(OVERWRITE_EXISTING=True) == "model_phase1.torch"
    assert resumed(OVERWRITE_EXISTING=True, LATEST_CHECKPOINT_RESUME_FILE_NUM=2) == "model_phase0.torch"
    assert resumed(AUTO_RESUME=False) is None


def test_a_run_that_follows_the_link_does_not_follow_it_to_a_damaged_file(
    tmp_path: Path, resumed: Callable[..., str | None]
) -> None:
    _leave(tmp_path, "phase0", "phase1")
    link = tmp_path / "checkpoint.torch"
    link.symlink_to("model_phase0.torch")
    follow = {"USE_SYMLINK_CHECKPOINT_FOR_RESUME": True, "AUTO_RESUME": False}
    assert resumed(**follow) == "checkpoint.torch"
    link.unlink()
    link.symlink_to("model_phase1.torch")
    (tmp_path / "model_phase1.torch").write_bytes(b"PK")
    assert resumed(**follow) == "model_phase0.torch"
    assert link.readlink() == Path("model_phase0.torch")
    link.unlink()
    assert resumed(**follow) is None
