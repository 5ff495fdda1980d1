from __future__ import annotations

import errno
import io
import os
import re
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from vissl_jointssl.atomic_file import write_at_once
from vissl_jointssl.checkpoints import (
    CheckpointWriteError,
    checkpoint_to_resume,
    damage,
    point_link,
    save_atomically,
    save_checkpoint,
    sha256,
)

CONTENT = {"weights": torch.ones(300, 400), "iteration": 3}
SIZE_LIMIT = 200_000  # less than CONTENT needs


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_is_saved_reads_back_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    save_atomically({"weight": torch.ones(3)}, tmp_path / "new" / "w.pth")
    assert torch.equal(torch.load(tmp_path / "new" / "w.pth", weights_only=True)["weight"], torch.ones(3))
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["w.pth"]


def test_a_failure_half_way_keeps_the_old_file_and_cleans_up(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    write_at_once(b"old", path)
    with pytest.raises(AttributeError, match="local object"):
        save_atomically({"weight": torch.ones(3), "unpicklable": lambda: None}, path)
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["w.pth"]


# --- training checkpoints


def test_a_checkpoint_reads_back_and_its_hash_is_that_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "new" / "model_phase0.torch"
    save_checkpoint(CONTENT, path)
    assert torch.equal(torch.load(path, weights_only=True)["weights"], CONTENT["weights"])
    assert path.with_name("model_phase0.torch.sha256").read_text() == f"{sha256(path)}  model_phase0.torch\n"
    assert _names(path.parent) == ["model_phase0.torch", "model_phase0.torch.sha256"]


def test_a_checkpoint_that_replaces_another_has_its_own_hash(tmp_path: Path) -> None:
    path = tmp_path / "model_phase0.torch"
    for value in (1.0, 2.0):
        save_checkpoint({"weights": torch.full((9,), value)}, path)
    assert torch.load(path, weights_only=True)["weights"][0] == 2.0
    assert damage(path) is None
    assert path.with_name("model_phase0.torch.sha256").read_text().startswith(sha256(path))


def test_nothing_takes_its_name_before_it_is_on_the_disk_and_no_hash_is_beside_a_file_it_is_not_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model_phase0.torch"
    save_checkpoint({"weights": torch.zeros(9)}, path)
    steps: list[str] = []
    fsync, replace, unlink = os.fsync, Path.replace, Path.unlink

    def recorded_fsync(descriptor: int) -> None:
        steps.append(f"sync {Path(f'/proc/self/fd/{descriptor}').readlink().name}")
        fsync(descriptor)

    def recorded_replace(self: Path, target: Path) -> Path:
        steps.append(f"{self.name} -> {target.name}")
        return replace(self, target)

    def recorded_unlink(self: Path, missing_ok: bool = False) -> None:
        steps.append(f"remove {self.name}")
        unlink(self, missing_ok)

    monkeypatch.setattr(os, "fsync", recorded_fsync)
    monkeypatch.setattr(Path, "replace", recorded_replace)
    monkeypatch.setattr(Path, "unlink", recorded_unlink)
    save_checkpoint({"weights": torch.ones(9)}, path)

    new_name, hash_name = (
        next(step.partition(" -> ")[0] for step in steps if step.endswith(f" -> {name}"))
        for name in ("model_phase0.torch", "model_phase0.torch.sha256")
    )
    wanted = [
        f"sync {new_name}",
        f"sync {hash_name}",
        "remove model_phase0.torch.sha256",
        f"sync {tmp_path.name}",
        f"{new_name} -> model_phase0.torch",
        f"sync {tmp_path.name}",
        f"{hash_name} -> model_phase0.torch.sha256",
        f"sync {tmp_path.name}",
    ]
    positions = iter(steps)
    assert all(step in positions for step in wanted), steps


def test_a_file_system_that_syncs_no_folders_is_no_failure_and_a_broken_one_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync = os.fsync

    def only_files(number: int) -> Callable[[int], None]:
        def sync(descriptor: int) -> None:
            if Path(f"/proc/self/fd/{descriptor}").is_dir():
                raise OSError(number, os.strerror(number))
            fsync(descriptor)

        return sync

    monkeypatch.setattr(os, "fsync", only_files(errno.EINVAL))
    save_checkpoint(CONTENT, tmp_path / "model_phase0.torch")
    monkeypatch.setattr(os, "fsync", only_files(errno.EIO))
    with pytest.raises(CheckpointWriteError, match=r"Input/output error"):
        save_checkpoint(CONTENT, tmp_path / "model_phase1.torch")


# --- full disk, quota, read-only folder


@pytest.fixture
def size_limit() -> Iterator[None]:
    """No file may grow over 200 kB, as under a batch system's limit; the kernel answers EFBIG."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (SIZE_LIMIT, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("name", ["model_phase1.torch", "model_phase0.torch"])
@pytest.mark.usefixtures("size_limit")
def test_a_checkpoint_over_the_limit_leaves_the_last_good_one_and_says_what_to_do(tmp_path: Path, name: str) -> None:
    good = tmp_path / "model_phase0.torch"
    save_checkpoint({"weights": torch.zeros(9)}, good)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(CheckpointWriteError) as caught:
        save_checkpoint(CONTENT, tmp_path / name)
    message = str(caught.value)
    assert "\n" not in message
    parts = re.fullmatch(
        rf"{re.escape(str(tmp_path / name))}: the checkpoint was not written \(File too large\): it needs (\d+) bytes, "
        r"(\d+) are free; raise the largest size of a file \(ulimit -f\); the last good checkpoint, "
        r"model_phase0\.torch, is intact, and the same command resumes from it",
        message,
    )
    assert parts, message
    in_memory = io.BytesIO()
    torch.save(CONTENT, in_memory)
    assert int(parts[1]) == len(in_memory.getvalue())
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert checkpoint_to_resume(tmp_path) == good


@pytest.mark.parametrize(
    ("number", "cause", "remedy"),
    [
        (errno.ENOSPC, "No space left on device", "make room there"),
        (errno.EDQUOT, "Disk quota exceeded", "raise the quota or make room within it"),
        (errno.EIO, "Input/output error", "mend that"),
    ],
)
def test_a_disk_that_is_full_only_when_flushed_is_named_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, cause: str, remedy: str
) -> None:
    save_checkpoint({"weights": torch.zeros(9)}, tmp_path / "model_phase0.torch")
    names = _names(tmp_path)

    def full(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", full)
    message = rf"model_phase1\.torch: .* \({cause}\): .*; {remedy}; the last good checkpoint, model_phase0\.torch, is"
    with pytest.raises(CheckpointWriteError, match=message):
        save_checkpoint(CONTENT, tmp_path / "model_phase1.torch")
    assert _names(tmp_path) == names


def test_a_folder_that_cannot_be_written_is_named_and_nothing_was_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("tempfile.mkstemp", read_only)
    message = (
        r"\(Read-only file system\): .* mount the file system for writing; no checkpoint was there yet, and .* anew"
    )
    with pytest.raises(CheckpointWriteError, match=message):
        save_checkpoint(CONTENT, tmp_path / "model_phase0.torch")


def test_a_file_where_the_folder_should_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "run").touch()
    with pytest.raises(CheckpointWriteError, match=r"run/model_phase0\.torch: .* \(File exists\)"):
        save_checkpoint(CONTENT, tmp_path / "run" / "model_phase0.torch")


def test_what_cannot_be_pickled_is_reported_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(AttributeError, match="local object"):
        save_checkpoint({"weights": torch.ones(3), "unpicklable": lambda: None}, tmp_path / "model_phase0.torch")
    assert _names(tmp_path) == []


# --- the link to the newest


def test_the_link_moves_with_its_folder(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    for name in ("model_phase0.torch", "model_phase1.torch"):
        save_checkpoint({"name": name}, tmp_path / "run" / name)
        point_link(tmp_path / "run", name)
    (tmp_path / "run").rename(tmp_path / "moved")
    assert torch.load(tmp_path / "moved" / "checkpoint.torch", weights_only=True) == {"name": "model_phase1.torch"}
    assert not list((tmp_path / "moved").glob(".part*"))


def test_the_old_link_is_there_until_the_new_one_takes_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    point_link(tmp_path, "model_phase0.torch")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        point_link(tmp_path, "model_phase1.torch")
    monkeypatch.undo()
    assert (tmp_path / "checkpoint.torch").readlink() == Path("model_phase0.torch")
    point_link(tmp_path, "model_phase1.torch")
    assert (tmp_path / "checkpoint.torch").readlink() == Path("model_phase1.torch")


def test_a_file_system_without_links_does_not_end_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "symlink_to", unsupported)
    point_link(tmp_path, "model_phase0.torch")
    assert "could not be pointed at model_phase0.torch (Operation not permitted)" in caplog.text
