"""Rows in quarantine are read by nobody; a list that cannot be understood stops everybody."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vissl_jointssl.manifest import (
    QUARANTINE_FILE,
    Entry,
    ManifestError,
    read_manifest,
    read_quarantine,
    write_manifest,
    write_quarantine,
)

ANY_TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"))


@pytest.fixture
def three(tmp_path: Path, save_row: Callable[..., Entry]) -> Path:
    write_manifest(tmp_path / "manifest.csv", [save_row(name) for name in ("a", "b", "c")])
    return tmp_path


def test_rows_in_quarantine_are_left_out_and_counted(three: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_quarantine(three, {"b": ("constant", "every voxel is 0")})
    with caplog.at_level(logging.INFO):
        assert [entry.id for entry in read_manifest(three).entries] == ["a", "c"]
    assert "1 of 3 rows are in quarantine" in caplog.text
    assert "name no row" not in caplog.text
    assert [entry.id for entry in read_manifest(three, with_quarantined=True).entries] == ["a", "b", "c"]


def test_ids_of_no_row_are_said_and_change_nothing(three: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_quarantine(three, {"b": ("constant", ""), "gone": ("empty", ""), "B": ("empty", "")})
    with caplog.at_level(logging.INFO):
        assert [entry.id for entry in read_manifest(three).entries] == ["a", "c"]
    assert "2 of 3 ids name no row of the manifest" in caplog.text


def test_a_manifest_whose_rows_are_all_in_quarantine_is_an_error(three: Path) -> None:
    write_quarantine(three, dict.fromkeys("abc", ("empty", "")))
    with pytest.raises(ManifestError, match=r"all its rows are in quarantine\nNext: see quarantine.csv, mend"):
        read_manifest(three)
    assert len(read_manifest(three, with_quarantined=True)) == 3


@settings(deadline=None, max_examples=60)  # each is flushed to the disk
@given(st.dictionaries(ANY_TEXT.filter(bool), st.tuples(ANY_TEXT, ANY_TEXT), max_size=4))
def test_the_list_is_read_back_whatever_its_cells_hold(
    tmp_path_factory: pytest.TempPathFactory, rows: dict[str, tuple[str, str]]
) -> None:
    folder = tmp_path_factory.getbasetemp()
    write_quarantine(folder, rows)
    assert read_quarantine(folder) == rows
    assert (folder / QUARANTINE_FILE).exists() == bool(rows)
    write_quarantine(folder, {})


def test_the_list_may_have_gone_through_excel(three: Path) -> None:
    (three / QUARANTINE_FILE).write_bytes(b'\xef\xbb\xbfid,code,reason\r\nb,empty,"a, b"\r\n\r\n')
    assert read_quarantine(three) == {"b": ("empty", "a, b")}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not a table of id, code, reason"),
        (b"\n\n", "is not a table of id, code, reason"),
        (b"id;code;reason\nb;empty;\n", "is not a table of id, code, reason"),
        (b"id,reason,code\n", "is not a table of id, code, reason"),
        (b"id,code,reason\nb,em", "is not a table of id, code, reason"),
        (b"id,code,reason\nb,empty,x,y\n", "is not a table of id, code, reason"),
        (b"id,code,reason\n,empty,x\n", "is not a table of id, code, reason"),
        (b"id,code,reason\n\xff,empty,x\n", "cannot be read as text: byte 15 is not UTF-8"),
        (b"id,code,reason\nb\0,empty,x\n", "it holds NUL characters"),
        (b'id,code,reason\nb,empty,"' + b"x" * 200_000 + b'"\n', "cannot be read as CSV: field larger than"),
    ],
)
def test_a_damaged_list_stops_reading(three: Path, fault_of: Callable[..., str], content: bytes, message: str) -> None:
    (three / QUARANTINE_FILE).write_bytes(content)
    assert message in fault_of(read_manifest, three)
    assert len(read_manifest(three, with_quarantined=True)) == 3


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_a_list_that_is_no_file_stops_reading_and_does_not_hang(
    three: Path, fault_of: Callable[..., str], make: Callable[[Path], None]
) -> None:
    make(three / QUARANTINE_FILE)
    assert "not a file" in fault_of(read_manifest, three)
