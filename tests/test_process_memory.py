"""Memory of this process, and of none of its relatives."""

from __future__ import annotations

import subprocess
import sys

from vissl_jointssl.process_memory import peak_bytes, resident_bytes


def test_the_peak_stays_when_memory_goes_and_a_child_does_not_inherit_it() -> None:
    before = resident_bytes()
    assert before is not None
    block = bytearray(b"x" * 2**29)
    held = resident_bytes()
    assert held is not None
    assert held - before > 0.9 * 2**29
    asks = "from vissl_jointssl.process_memory import peak_bytes; print(peak_bytes())"
    child = int(subprocess.run([sys.executable, "-c", asks], capture_output=True, check=True).stdout)
    assert 2**22 < child < 2**28
    del block
    after = resident_bytes()
    assert after is not None
    assert after < held - 0.9 * 2**29
    assert peak_bytes() >= held


def test_without_proc_the_peak_is_the_systems(monkeypatch, tmp_path) -> None:
    known = peak_bytes()
    monkeypatch.setattr("vissl_jointssl.process_memory._STATUS", tmp_path / "none")
    assert resident_bytes() is None
    assert 0.5 * known < peak_bytes() < 10 * known
