from __future__ import annotations

import subprocess
import sys

import pytest

from vissl_jointssl.models import freed_memory

CODE = """
import resource, sys
from pathlib import Path
import numpy as np
from vissl_jointssl.models.freed_memory import give_back_freed_maps
if sys.argv[1] == "given":
    assert give_back_freed_maps()
np.ones(2**20 * 28, np.uint8)  # freed at once: glibc raises its threshold to 28 MiB
maps = [(np.ones(2**20 * 24, np.uint8), bytearray(2**16)) for _ in range(8)]
held = [small for _, small in maps]  # they live on, between the maps
del maps
print(int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() // 2**20)
"""


def _held(mode: str) -> int:
    ended = subprocess.run([sys.executable, "-c", CODE, mode], capture_output=True, text=True, check=True)
    return int(ended.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_holes_between_things_that_live_on_go_back_to_the_system() -> None:
    kept, given = _held("kept"), _held("given")
    assert kept - given > 120, (kept, given)  # MiB; seven holes of 24 lie below the last thing that lives on


def test_without_glibc_it_says_no(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(freed_memory.ctypes, "CDLL", lambda _name: object())
    assert not freed_memory.give_back_freed_maps()
