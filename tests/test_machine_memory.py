"""What a machine and a job with a limit have left."""

from __future__ import annotations

from pathlib import Path

import pytest

from vissl_jointssl import machine_memory as module
from vissl_jointssl.machine_memory import MachineMemory, machine_memory

GIB = 2**30


@pytest.fixture
def cgroups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Folders of version 2 and version 1 in place of the kernel's."""
    meminfo = tmp_path / "meminfo"
    meminfo.write_text(f"MemTotal: {16 * GIB // 1024} kB\nMemFree: 12 kB\nMemAvailable: {3 * GIB // 1024} kB\n")
    monkeypatch.setattr(module, "_MEMINFO", meminfo)
    folders = (tmp_path / "two", tmp_path / "one")
    kept = zip(folders, module._CGROUPS, strict=True)
    monkeypatch.setattr(module, "_CGROUPS", tuple((folder, *known[1:]) for folder, known in kept))
    for folder in folders:
        folder.mkdir()
    return folders


def test_without_a_limit_the_job_may_take_what_is_free(cgroups: tuple[Path, Path]) -> None:
    assert machine_memory() == MachineMemory(16 * GIB, 3 * GIB)
    _limit(cgroups[0], "memory.max", "max", "memory.current", GIB, "inactive_file", 0)
    assert machine_memory() == MachineMemory(16 * GIB, 3 * GIB)
    _limit(cgroups[1], "memory.limit_in_bytes", 2**63 - 4096, "memory.usage_in_bytes", GIB, "total_inactive_file", 0)
    found = machine_memory()
    assert found == MachineMemory(16 * GIB, 3 * GIB)
    assert found is not None
    assert found.allowed == 3 * GIB


@pytest.mark.parametrize(
    ("version", "limit", "use", "cached"),
    [
        (0, "memory.max", "memory.current", "inactive_file"),
        (1, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ],
)
def test_a_job_may_take_what_its_limit_leaves_and_cached_files_are_room(
    cgroups: tuple[Path, Path], version: int, limit: str, use: str, cached: str
) -> None:
    _limit(cgroups[version], limit, 4 * GIB, use, 4 * GIB, cached, 2 * GIB)
    found = machine_memory()
    assert found == MachineMemory(16 * GIB, 3 * GIB, 4 * GIB, 2 * GIB)
    assert found is not None
    assert found.allowed == 2 * GIB
    _limit(cgroups[version], limit, 8 * GIB, use, 2 * GIB, cached, 0)
    found = machine_memory()
    assert found is not None
    assert found.allowed == 3 * GIB  # the machine has no more
    _limit(cgroups[version], limit, GIB, use, 2 * GIB, cached, 0)
    found = machine_memory()
    assert found is not None
    assert found.allowed == 0


def test_a_system_that_does_not_tell(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "_MEMINFO", tmp_path / "none")
    assert machine_memory() is None


def test_this_machine_tells() -> None:
    found = machine_memory()
    assert found is not None
    assert 0 < found.allowed <= found.free <= found.total


def _limit(folder: Path, limit: str, most: int | str, use: str, used: int, cached: str, files: int) -> None:
    (folder / limit).write_text(f"{most}\n")
    (folder / use).write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 5\n{cached} {files}\nkernel 7\n")
