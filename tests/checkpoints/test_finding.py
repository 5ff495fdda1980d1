from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from vissl_jointssl.checkpoints import damaged_checkpoints, is_finished, newest_checkpoint


def test_a_directory_without_checkpoints_has_no_newest_one(tmp_path: Path) -> None:
    (tmp_path / "log.txt").write_text("x")
    assert newest_checkpoint(tmp_path) is None
    assert newest_checkpoint(tmp_path / "absent") is None
    assert not is_finished(tmp_path)


def test_phases_are_ordered_as_numbers(tmp_path: Path, write_checkpoint: Callable[..., Path]) -> None:
    for phase in (2, 10, 9):
        write_checkpoint(f"model_phase{phase}.torch")
    assert newest_checkpoint(tmp_path) == tmp_path / "model_phase10.torch"
    assert not is_finished(tmp_path)


@pytest.mark.parametrize(("phase_at", "newest"), [(50, "model_iteration60.torch"), (70, "model_phase4.torch")])
def test_between_a_phase_and_an_iteration_the_one_trained_further_wins(
    tmp_path: Path, write_checkpoint: Callable[..., Path], phase_at: int, newest: str
) -> None:
    write_checkpoint("model_phase4.torch", iteration=phase_at)
    write_checkpoint("model_iteration60.torch", iteration=60)
    assert newest_checkpoint(tmp_path) == tmp_path / newest


def test_the_final_checkpoint_wins_and_means_finished(tmp_path: Path, write_checkpoint: Callable[..., Path]) -> None:
    final = write_checkpoint("model_final_checkpoint_phase1.torch")
    write_checkpoint("model_phase5.torch")
    write_checkpoint("model_iteration900.torch", iteration=900)
    assert newest_checkpoint(tmp_path) == final
    assert is_finished(tmp_path)


def test_a_checkpoint_cut_short_by_a_kill_is_passed_over_and_named(
    tmp_path: Path, write_checkpoint: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    whole = write_checkpoint("model_phase1.torch")
    final = write_checkpoint("model_final_checkpoint_phase2.torch")
    final.write_bytes(final.read_bytes()[:-200])

    with caplog.at_level(logging.WARNING):
        assert newest_checkpoint(tmp_path) == whole
    assert "model_final_checkpoint_phase2.torch is incomplete" in caplog.text
    assert not is_finished(tmp_path)
    assert damaged_checkpoints(tmp_path) == (final,)


def test_shards_and_other_files_are_not_taken_for_checkpoints(
    tmp_path: Path, write_checkpoint: Callable[..., Path]
) -> None:
    write_checkpoint("model_phase3_shard0.torch")
    write_checkpoint("my_model_phase8.torch")
    assert newest_checkpoint(tmp_path) is None
