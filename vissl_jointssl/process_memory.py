"""Memory of this process, as the kernel tells it."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

_STATUS = Path("/proc/self/status")


def resident_bytes() -> int | None:
    """What it has now; None where the system does not tell."""
    return _of_status("VmRSS")


def peak_bytes() -> int:
    """The most it has had.

    Not `getrusage` where it can be helped: on Linux that counts the parent's memory in, from between fork and exec.
    """
    found = _of_status("VmHWM")
    if found is not None:
        return found
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024  # bytes there, kilobytes elsewhere


def _of_status(key: str) -> int | None:
    if not _STATUS.exists():
        return None
    lines = dict(line.split(":", 1) for line in _STATUS.read_text(encoding="utf-8").splitlines())
    return int(lines[key].split()[0]) * 1024 if key in lines else None
