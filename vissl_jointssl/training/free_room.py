"""What this machine has to give before a run: cores, memory, shared memory, disk."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from vissl_jointssl.machine_memory import machine_memory
from vissl_jointssl.manifest import Entry, read_manifest

SHARED_MEMORY = Path("/dev/shm")


@dataclass(frozen=True)
class Room:
    """Bytes, but for `cores`; None where this system does not tell."""

    cores: int
    memory: int | None
    shared_memory: int | None
    disk: int


def look_around(folder: Path) -> Room:
    """What is free now, on the disk for the file system that a folder is or would be on."""
    shared = shutil.disk_usage(SHARED_MEMORY).free if SHARED_MEMORY.is_dir() else None
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory = machine_memory()
    return Room(
        cores, None if memory is None else memory.allowed, shared, shutil.disk_usage(nearest_folder(folder)).free
    )


def nearest_folder(folder: Path) -> Path:
    """The folder, or the nearest above it that is there."""
    return next(one for one in (folder.absolute(), *folder.absolute().parents) if one.is_dir())


def size_of_cache(manifests: Iterable[Path]) -> int:
    """Bytes of the prepared arrays, labels and boxes of some manifests.

    Raises:
        ManifestError: If a manifest is not to be read; a file that is missing counts nothing, the run will name it.
    """
    return sum(_size(manifest.root, manifest.entries) for manifest in map(read_manifest, manifests))


def _size(root: Path, entries: Iterable[Entry]) -> int:
    files = {root / file for entry in entries for file in entry.files}
    return sum(file.stat().st_size for file in files if file.is_file())
