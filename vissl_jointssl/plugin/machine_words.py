"""How much memory a machine has left, in words for whoever must find out why a process died."""

from __future__ import annotations

import shutil
from pathlib import Path

from vissl_jointssl.machine_memory import machine_memory

MIB, GIB = 2**20, 2**30
SHARED_MEMORY = Path("/dev/shm")  # where loader workers leave their batches


def memory_words() -> str:
    """Memory of the machine, and of the container or job, where there is a limit: `3.1 GiB of 15.6 GiB free`."""
    memory = machine_memory()
    if memory is None:
        return "memory: unknown on this system"
    said = f"memory: {_size(memory.free)} of {_size(memory.total)} free"
    if memory.limit is None or memory.use is None:
        return said
    return f"{said}, {_size(memory.use)} of {_size(memory.limit)} allowed to this job in use"


def shared_memory_words() -> str:
    """Room for batches on their way from loader workers: `/dev/shm: 3 MiB of 64 MiB free`."""
    try:
        usage = shutil.disk_usage(SHARED_MEMORY)
    except OSError:
        return f"{SHARED_MEMORY}: not there"
    return f"{SHARED_MEMORY}: {_size(usage.free)} of {_size(usage.total)} free"


def _size(count: int) -> str:
    return f"{count / GIB:.1f} GiB" if count >= GIB else f"{count / MIB:.0f} MiB"
