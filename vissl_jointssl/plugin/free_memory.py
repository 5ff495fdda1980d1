"""Bytes that a rank may still take on the device it trains on."""

from __future__ import annotations

from pathlib import Path

import torch

_MEMINFO = Path("/proc/meminfo")
_LIMIT, _USE = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")


def free_memory(device: torch.device, ranks: int) -> int | None:
    """What is free for one rank, bytes; None where the system does not tell.

    On a GPU that is what the driver has and what PyTorch took and does not use. On a CPU it is a share of what the
    machine, or the job, has left; ranks on other machines are counted as if they were on this one, for the safe side.

    Args:
        device: Of the rank.
        ranks: How many the run has.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if not _MEMINFO.exists():
        return None
    lines = dict(line.split(":", 1) for line in _MEMINFO.read_text(encoding="ascii").splitlines())
    available = int(lines["MemAvailable"].split()[0]) * 1024
    if _LIMIT.exists() and (limit := _LIMIT.read_text(encoding="ascii").strip()) != "max":
        available = min(available, int(limit) - int(_USE.read_text(encoding="ascii")))
    return available // ranks
