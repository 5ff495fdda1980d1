"""What a resume does with damaged checkpoints, and what it never does."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from vissl_jointssl.checkpoints import CheckpointError, checkpoint_to_resume, point_link, save_checkpoint


@pytest.fixture
def epochs(tmp_path: Path) -> Callable[..., list[Path]]:
    """Write the checkpoints of some epochs into one folder."""

    def write(*names: str) -> list[Path]:
        paths = [tmp_path / f"model_{name}.torch" for name in names]
        for number, path in enumerate(paths):
            save_checkpoint({"number": number, "weights": torch.ones(100)}, path)
        return paths

    return write


def _cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def test_a_damaged_checkpoint_is_set_aside_with_its_hash_and_one_line_says_so(
    epochs: Callable[..., list[Path]], caplog: pytest.LogCaptureFixture
) -> None:
    before, newest = epochs("phase0", "phase1")
    _cut(newest)
    size = newest.stat().st_size
    with caplog.at_level(logging.WARNING):
        assert checkpoint_to_resume(newest.parent) == before
    assert caplog.messages == [
        f"{newest} is damaged (its end is missing after {size} bytes); set aside as model_phase1.torch.damaged"
    ]
    assert sorted(path.name for path in newest.parent.iterdir()) == [
        "model_phase0.torch",
        "model_phase0.torch.sha256",
        "model_phase1.torch.damaged",
        "model_phase1.torch.damaged.sha256",
    ]


def test_a_second_damaged_file_of_the_same_name_does_not_replace_the_first(
    epochs: Callable[..., list[Path]],
) -> None:
    for _ in range(3):
        _, newest = epochs("phase0", "phase1")
        _cut(newest)
        checkpoint_to_resume(newest.parent)
    assert sorted(path.name for path in newest.parent.glob("*.damaged?")) == [
        "model_phase1.torch.damaged2",
        "model_phase1.torch.damaged3",
    ]


def test_a_damaged_final_checkpoint_sends_the_run_back_to_the_last_epoch(epochs: Callable[..., list[Path]]) -> None:
    _, last, final = epochs("phase0", "phase1", "final_checkpoint_phase2")
    assert checkpoint_to_resume(final.parent) == final
    _cut(final)
    assert checkpoint_to_resume(final.parent) == last


def test_when_none_is_left_the_run_stops_now_and_the_next_time_too(epochs: Callable[..., list[Path]]) -> None:
    paths = epochs("phase0", "phase1")
    for path in paths:
        _cut(path)
    message = (
        r"every checkpoint is damaged \(model_phase0\.torch\.damaged, model_phase1\.torch\.damaged\), so there is "
        r"nothing to resume from; copy a whole one back into the folder, or move the folder away or delete it"
    )
    for _ in range(2):
        with pytest.raises(CheckpointError, match=message):
            checkpoint_to_resume(paths[0].parent)


def test_a_reader_on_another_node_agrees_and_touches_nothing(epochs: Callable[..., list[Path]]) -> None:
    before, newest = epochs("phase0", "phase1")
    _cut(newest)
    names = sorted(path.name for path in newest.parent.iterdir())
    assert checkpoint_to_resume(newest.parent, sets_aside=False) == before
    assert sorted(path.name for path in newest.parent.iterdir()) == names
    _cut(before)
    with pytest.raises(CheckpointError, match=r"\(model_phase0\.torch, model_phase1\.torch\)"):
        checkpoint_to_resume(newest.parent, sets_aside=False)


def test_what_does_not_count_is_neither_taken_nor_judged(epochs: Callable[..., list[Path]]) -> None:
    first, last, iteration, final = epochs("phase0", "phase1", "iteration9", "final_checkpoint_phase2")
    _cut(iteration)
    _cut(final)
    folder = first.parent
    assert checkpoint_to_resume(folder, final=False, within_epochs=False) == last
    assert checkpoint_to_resume(folder, final=False, within_epochs=False, nth=2) == first
    assert checkpoint_to_resume(folder, final=False, within_epochs=False, nth=9) == first
    assert list(folder.glob("*.damaged")) == []


def test_a_folder_without_checkpoints_starts_from_the_beginning(tmp_path: Path) -> None:
    (tmp_path / "cluster_assignments.torch").touch()
    (tmp_path / "model_phase0.torch.sha256").write_text("ab" * 32)  # of a file that a user deleted
    assert checkpoint_to_resume(tmp_path) is None
    assert checkpoint_to_resume(tmp_path / "absent") is None


def test_a_link_to_what_was_set_aside_points_at_what_the_run_goes_on_from(epochs: Callable[..., list[Path]]) -> None:
    before, newest = epochs("phase0", "phase1")
    point_link(newest.parent, newest.name)
    _cut(newest)
    checkpoint_to_resume(newest.parent)
    assert (newest.parent / "checkpoint.torch").resolve() == before


def test_what_killed_writers_left_is_removed_and_what_is_being_written_is_not(
    epochs: Callable[..., list[Path]], caplog: pytest.LogCaptureFixture
) -> None:
    (path,) = epochs("phase0")
    old, fresh = path.with_name(".part-old.part"), path.with_name(".part-fresh.part")
    for part in (old, fresh):
        part.write_bytes(b"half")
    an_hour_ago = time.time() - 3600
    os.utime(old, (an_hour_ago, an_hour_ago))
    with caplog.at_level(logging.INFO):
        assert checkpoint_to_resume(path.parent) == path
    assert not old.exists()
    assert fresh.exists()
    assert caplog.messages == [f"{old} was left unfinished by a writer that was killed; removed (4 bytes)"]


def test_a_folder_that_takes_no_new_names_is_an_error_with_the_next_step(
    epochs: Callable[..., list[Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, newest = epochs("phase0", "phase1")
    _cut(newest)

    def refuse(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(
        CheckpointError, match=r"cannot be renamed to model_phase1\.torch\.damaged \(Read-only file system\); make"
    ):
        checkpoint_to_resume(newest.parent)
