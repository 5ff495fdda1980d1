"""Every kind of damage is found, and nothing whole is called damaged."""

from __future__ import annotations

import errno
import io
import os
import random
import shutil
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from vissl_jointssl.checkpoints import CheckpointError, checkpoint_to_resume, damage, save_checkpoint
from vissl_jointssl.checkpoints.integrity import sidecar_of
from vissl_jointssl.checkpoints.loading import DamagedFileError, load_plain

FLIPS = 150


@pytest.fixture
def two_checkpoints(tmp_path: Path, write_checkpoint: Callable[..., Path]) -> tuple[Path, Path]:
    """The checkpoints of two epochs, in VISSL's layout and by our writer; 60 kB each."""
    paths = []
    for phase in (0, 1):
        weights = {"_feature_blocks.conv1.weight": torch.full((150, 100), float(phase))}
        path = write_checkpoint(f"model_phase{phase}.torch", trunk=weights, iteration=phase)
        save_checkpoint(torch.load(path, weights_only=True), path)
        paths.append(path)
    return paths[0], paths[1]


def _tensors(path: Path) -> bytes:
    """Everything in a checkpoint, to be compared bit by bit."""
    content = torch.load(path, weights_only=True)
    stream = io.BytesIO()
    torch.save(content, stream)
    return stream.getvalue()


def test_a_whole_checkpoint_is_whole_with_and_without_its_hash(two_checkpoints: tuple[Path, Path]) -> None:
    _, path = two_checkpoints
    assert damage(path) is None
    path.with_name(f"{path.name}.sha256").unlink()
    assert damage(path) is None


def test_the_hash_beside_a_checkpoint_is_what_sha256sum_checks(two_checkpoints: tuple[Path, Path]) -> None:
    _, path = two_checkpoints
    command = ["sha256sum", "--check", "--strict", f"{path.name}.sha256"]
    result = subprocess.run(command, cwd=path.parent, capture_output=True, text=True, check=True)
    assert result.stdout == f"{path.name}: OK\n"


@pytest.mark.parametrize("hashed", [True, False])
@pytest.mark.parametrize("tenth", range(10))
def test_truncated_at_any_tenth_a_resume_finds_the_one_before(
    two_checkpoints: tuple[Path, Path], tenth: int, hashed: bool
) -> None:
    before, path = two_checkpoints
    if not hashed:
        path.with_name(f"{path.name}.sha256").unlink()
    whole = path.read_bytes()
    os.truncate(path, len(whole) * tenth // 10)
    assert checkpoint_to_resume(path.parent) == before
    assert path.with_name(f"{path.name}.damaged").read_bytes() == whole[: len(whole) * tenth // 10]


@pytest.mark.parametrize("lost", [1, 2, 20, 21, 22, 23, 100, 1000])
def test_not_even_the_last_byte_may_be_missing(two_checkpoints: tuple[Path, Path], lost: int) -> None:
    before, path = two_checkpoints
    path.with_name(f"{path.name}.sha256").unlink()
    os.truncate(path, path.stat().st_size - lost)
    assert checkpoint_to_resume(path.parent) == before


def test_zeros_where_the_disk_lost_a_block_are_found(two_checkpoints: tuple[Path, Path]) -> None:
    before, path = two_checkpoints
    whole = path.read_bytes()
    path.write_bytes(whole[:8192] + bytes(4096) + whole[12288:])
    assert checkpoint_to_resume(path.parent) == before


def test_any_flipped_byte_is_found_where_there_is_a_hash(two_checkpoints: tuple[Path, Path]) -> None:
    _, path = two_checkpoints
    whole = path.read_bytes()
    draw = random.Random(0)
    for place in [0, len(whole) - 1, *(draw.randrange(len(whole)) for _ in range(FLIPS))]:
        flipped = bytearray(whole)
        flipped[place] ^= 1 << draw.randrange(8)
        path.write_bytes(flipped)
        assert damage(path) is not None, f"byte {place}"


def test_without_a_hash_a_flipped_byte_is_found_or_changes_nothing(two_checkpoints: tuple[Path, Path]) -> None:
    _, path = two_checkpoints
    path.with_name(f"{path.name}.sha256").unlink()
    whole, tensors = path.read_bytes(), _tensors(path)
    draw = random.Random(0)
    structure = [place for place in range(len(whole)) if not 2000 < place < len(whole) - 4000]
    found = 0
    for place in draw.sample(structure, FLIPS) + draw.sample(range(len(whole)), FLIPS):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << draw.randrange(8)
        path.write_bytes(flipped)
        if damage(path) is not None:
            found += 1
        else:  # padding and time stamps of the archive
            assert _tensors(path) == tensors, f"byte {place}"
    assert found > FLIPS


def test_a_part_marked_as_a_folder_is_found_though_every_checksum_is_right(two_checkpoints: tuple[Path, Path]) -> None:
    """PyTorch's reader would give such a weight whatever lies in the memory."""
    path = two_checkpoints[1]
    sidecar_of(path).unlink()
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        parts = [part.filename for part in archive.infolist() if "/data/" in part.filename]
    # An entry of the directory at the archive's end: 46 bytes, the attributes at 38, then the name (APPNOTE 4.3.12).
    entry = content.rindex(parts[0].encode()) - 46
    assert content[entry : entry + 4] == b"PK\x01\x02"
    content[entry + 38] |= 0x10
    path.write_bytes(content)
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
    assert damage(path) == f"it is no whole archive ({parts[0]} is marked as a folder)"
    with pytest.raises(DamagedFileError, match="is marked as a folder"), path.open("rb") as stream:
        load_plain(stream)


@pytest.mark.parametrize("note", [b"", b"nonsense", b"\xff" * 64, b"ab" * 10])
def test_a_damaged_hash_condemns_no_whole_checkpoint_and_saves_no_damaged_one(
    two_checkpoints: tuple[Path, Path], note: bytes
) -> None:
    _, path = two_checkpoints
    path.with_name(f"{path.name}.sha256").write_bytes(note)
    assert damage(path) is None
    os.truncate(path, 40_000)
    assert damage(path) == "its end is missing after 40000 bytes"


def test_another_runs_checkpoint_under_this_name_is_found(two_checkpoints: tuple[Path, Path]) -> None:
    before, path = two_checkpoints
    shutil.copy(before, path)
    assert damage(path) == "its SHA-256 is not the one in model_phase1.torch.sha256"


def test_an_empty_file_and_one_that_is_gone_are_named(tmp_path: Path) -> None:
    (tmp_path / "model_phase1.torch").touch()
    assert damage(tmp_path / "model_phase1.torch") == "it is empty (0 bytes)"
    assert damage(tmp_path / "model_phase2.torch") == "it was moved or deleted just now"


def test_a_disk_that_fails_is_damage_and_a_missing_permission_is_not(
    two_checkpoints: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, path = two_checkpoints

    def fail_with(number: int) -> Callable[..., None]:
        def opened(*_: object, **__: object) -> None:
            raise OSError(number, os.strerror(number))

        return opened

    monkeypatch.setattr(Path, "open", fail_with(errno.EIO))
    assert damage(path) == "it cannot be read (Input/output error)"
    monkeypatch.setattr(Path, "open", fail_with(errno.EACCES))
    with pytest.raises(CheckpointError, match=r"model_phase1\.torch: cannot be opened \(Permission denied\); make it"):
        damage(path)
