from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from vissl_jointssl.atomic_file import replaced_at_once, write_at_once


def test_new_bytes_replace_old_ones_and_nothing_stays_beside_them(tmp_path: Path) -> None:
    write_at_once(b"old and longer", tmp_path / "new" / "f")
    write_at_once(b"new", tmp_path / "new" / "f")
    assert (tmp_path / "new" / "f").read_bytes() == b"new"
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["f"]


def test_a_failure_half_way_keeps_the_old_file_and_cleans_up(tmp_path: Path) -> None:
    write_at_once(b"old", tmp_path / "f")

    def fail_half_way() -> None:
        with replaced_at_once(tmp_path / "f") as stream:
            stream.write(b"half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail_half_way()
    assert (tmp_path / "f").read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["f"]


def test_a_reader_sees_the_old_file_until_the_new_one_is_whole(tmp_path: Path) -> None:
    write_at_once(b"old", tmp_path / "f")
    with replaced_at_once(tmp_path / "f") as stream:
        stream.write(b"new")
        stream.flush()
        assert (tmp_path / "f").read_bytes() == b"old"


def test_others_may_read_it_as_far_as_the_umask_lets_them(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        write_at_once(b"", tmp_path / "f")
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == 0o640
