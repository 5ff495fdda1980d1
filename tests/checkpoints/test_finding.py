from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from vissl_jointssl.checkpoints import is_finished, newest_checkpoint


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


def test_a_reader_passes_over_a_damaged_checkpoint_names_it_and_leaves_it_where_it_is(
    tmp_path: Path, write_checkpoint: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    whole = write_checkpoint("model_phase1.torch")
    final = write_checkpoint("model_final_checkpoint_phase2.torch")
    final.write_bytes(final.read_bytes()[:-200])
    size = final.stat().st_size

    with caplog.at_level(logging.WARNING):
        assert newest_checkpoint(tmp_path) == whole
    assert caplog.messages == [f"{final} is damaged (its end is missing after {size} bytes); passing over it"]
    assert not is_finished(tmp_path)
    assert final.stat().st_size == size


def test_older_checkpoints_are_not_read_when_the_newest_is_whole(
    tmp_path: Path, write_checkpoint: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    # A month's checkpoints are hundreds of gigabytes.
    (tmp_path / "model_phase0.torch").touch()
    newest = write_checkpoint("model_phase1.torch")
    assert newest_checkpoint(tmp_path) == newest
    assert caplog.messages == []


def test_shards_and_other_files_are_not_taken_for_checkpoints(
    tmp_path: Path, write_checkpoint: Callable[..., Path]
) -> None:
    write_checkpoint("model_phase3_shard0.torch")
    write_checkpoint("my_model_phase8.torch")
    write_checkpoint("model_phase9.torch.damaged")
    (tmp_path / "model_final_checkpoint_phase4.torch.sha256").write_text("ab" * 32)
    (tmp_path / "model_phase7.torch").mkdir()
    assert newest_checkpoint(tmp_path) is None
    assert not is_finished(tmp_path)
