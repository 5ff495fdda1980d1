"""Memory of this machine, and of the job on it where that has a limit, as the kernel tells it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

KIB = 1024
_MEMINFO = Path("/proc/meminfo")
_CGROUPS = (  # limit, use, and what of the use is files not looked at of late; version 2, version 1
    (Path("/sys/fs/cgroup"), "memory.max", "memory.current", "inactive_file"),
    (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


@dataclass(frozen=True)
class MachineMemory:
    """Bytes.

    Attributes:
        total: Of the machine.
        free: What processes can have of it without swapping.
        limit: Of the container or job; None where it may take all.
        use: Of the container or job, without cached files, which the kernel drops for room; None without a limit.
    """

    total: int
    free: int
    limit: int | None = None
    use: int | None = None

    @property
    def allowed(self) -> int:
        """What this process may still take."""
        if self.limit is None or self.use is None:
            return self.free
        return max(0, min(self.free, self.limit - self.use))


def machine_memory() -> MachineMemory | None:
    """What the machine has now; None where the system does not tell."""
    try:
        free, total = _numbers(_MEMINFO, "MemAvailable:", "MemTotal:")
    except (OSError, KeyError, ValueError):
        return None
    for folder, limit_file, use_file, cached in _CGROUPS:
        try:
            limit, use = (int((folder / name).read_text(encoding="ascii")) for name in (limit_file, use_file))
            (droppable,) = _numbers(folder / "memory.stat", cached)
        except (OSError, KeyError, ValueError):  # no such cgroup, or "max"
            continue
        if limit < total * KIB:
            return MachineMemory(total * KIB, free * KIB, limit, max(0, use - droppable))
    return MachineMemory(total * KIB, free * KIB)


def _numbers(table: Path, *names: str) -> list[int]:
    """The number that follows each name, in a file of one name a line."""
    words = (line.split() for line in table.read_text(encoding="ascii").splitlines())
    found = {key: int(value) for key, value, *_ in words}
    return [found[name] for name in names]
