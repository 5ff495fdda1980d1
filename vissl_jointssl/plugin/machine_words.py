"""How much memory a machine has left, in words for whoever must find out why a process died."""

from __future__ import annotations

import shutil
from pathlib import Path

MIB, GIB = 2**20, 2**30
SHARED_MEMORY = Path("/dev/shm")  # where loader workers leave their batches
_MEMINFO = Path("/proc/meminfo")
_CGROUPS = (  # limit and use: version 2, version 1
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),
    (Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"), Path("/sys/fs/cgroup/memory/memory.usage_in_bytes")),
)


def memory_words() -> str:
    """Memory of the machine, and of the container or job, where there is a limit: `3.1 GiB of 15.6 GiB free`."""
    try:
        lines = dict(line.split(":", 1) for line in _MEMINFO.read_text(encoding="ascii").splitlines())
        free, total = (int(lines[name].split()[0]) * 1024 for name in ("MemAvailable", "MemTotal"))
    except (OSError, KeyError, ValueError):
        return "memory: unknown on this system"
    said = f"memory: {_size(free)} of {_size(total)} free"
    for limit_file, use_file in _CGROUPS:
        try:
            limit, use = (int(path.read_text(encoding="ascii")) for path in (limit_file, use_file))
        except (OSError, ValueError):  # no such cgroup, or "max"
            continue
        if limit < total:
            said += f", {_size(use)} of {_size(limit)} allowed to this job in use"
    return said


def shared_memory_words() -> str:
    """Room for batches on their way from loader workers: `/dev/shm: 3 MiB of 64 MiB free`."""
    try:
        usage = shutil.disk_usage(SHARED_MEMORY)
    except OSError:
        return f"{SHARED_MEMORY}: not there"
    return f"{SHARED_MEMORY}: {_size(usage.free)} of {_size(usage.total)} free"


def _size(count: int) -> str:
    return f"{count / GIB:.1f} GiB" if count >= GIB else f"{count / MIB:.0f} MiB"
