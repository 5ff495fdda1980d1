"""Manifests from anywhere: paths that lead out, tables that are none, cells that are too much."""

from __future__ import annotations

import csv
import dataclasses
import os
import pickle
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vissl_jointssl.manifest import COLUMNS, Entry, Manifest, ManifestError, read_manifest, write_manifest

ANY_TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1).filter(str.strip)


def cells(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        return list(csv.reader(file))


def edit(path: Path, column: str, value: str) -> None:
    rows = cells(path)
    rows[1][COLUMNS.index(column)] = value
    with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        csv.writer(file).writerows(rows)


# --- paths


@pytest.mark.parametrize("column", ["path", "label_path", "boxes_path", "grid_path"])
@pytest.mark.parametrize("path", ["../a", "/etc/a", "//a", "x/../../a", "..\\a", "C:\\a", "x\\..\\a", "\\\\server\\a"])
def test_a_path_that_leads_out_is_refused_before_any_file_is_touched(
    saved: Manifest, fault_of: Callable[..., str], column: str, path: str
) -> None:
    name = path + (".json" if column in ("boxes_path", "grid_path") else ".npy")
    edit(saved.path, column, name)
    assert f"{column} is {name!r}, expected a path inside the manifest's folder" in fault_of(read_manifest, saved.path)


@pytest.mark.parametrize("kind", ["file", "folder", "chain", "parent"])
def test_links_that_lead_out_are_refused(
    tmp_path: Path, save_row: Callable[..., Entry], fault_of: Callable[..., str], kind: str
) -> None:
    entry = save_row()  # outside of the root below
    root = tmp_path / "root"
    root.mkdir()
    if kind == "file":
        (root / "volumes").mkdir()
        (root / "volumes" / "a.npy").symlink_to(tmp_path / "volumes" / "a.npy")
    elif kind == "folder":
        (root / "volumes").symlink_to(tmp_path / "volumes")
    elif kind == "chain":
        (root / "first").symlink_to("second")
        (root / "second").symlink_to("..")
        (root / "volumes").symlink_to("first/volumes")
    else:
        (root / "volumes").symlink_to("../volumes", target_is_directory=True)
    manifest = Manifest(root / "manifest.csv", [entry])
    for opener in (manifest.open, manifest.faults_of):
        said = fault_of(opener, entry) if opener == manifest.open else opener(entry)[0]
        assert said == "volumes/a.npy (row 'a') is a link that leaves the manifest's folder"
    for column, reader in (("boxes_path", manifest.open_boxes), ("grid_path", manifest.open_grid)):
        linked = dataclasses.replace(entry, **{column: "volumes/a.json"})
        assert "is a link that leaves" in fault_of(reader, linked) or kind == "file"


def test_a_row_made_without_a_table_cannot_lead_out_either(
    tmp_path: Path, save_row: Callable[..., Entry], fault_of: Callable[..., str]
) -> None:
    save_row()
    (tmp_path / "root").mkdir()
    for path in ("../volumes/a.npy", str(tmp_path / "volumes" / "a.npy")):
        entry = save_row(path=path)
        manifest = Manifest(tmp_path / "root" / "manifest.csv", [entry])
        assert "leaves the manifest's folder" in fault_of(manifest.open, entry)


def test_links_inside_and_a_folder_behind_a_link_are_fine(tmp_path: Path, save_row: Callable[..., Entry]) -> None:
    (tmp_path / "inside.npy").symlink_to("volumes/a.npy")
    write_manifest(tmp_path / "manifest.csv", [save_row(), save_row("b", path="inside.npy")])
    moved = tmp_path.parent / f"{tmp_path.name}-moved"
    tmp_path.rename(moved)
    behind = tmp_path.parent / f"{tmp_path.name}-link"
    behind.symlink_to(moved, target_is_directory=True)
    for root in (behind, moved, behind / "volumes" / ".."):
        manifest = read_manifest(root)
        manifest.check_files()
        assert [int(manifest.open(entry)[1, 2, 3]) for entry in manifest.entries] == [23, 23]


# --- tables


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-8"])
@pytest.mark.parametrize("line_end", ["\r\n", "\n"])
def test_a_manifest_may_have_gone_through_excel(saved: Manifest, encoding: str, line_end: str) -> None:
    text = saved.path.read_text().replace("\n", line_end) + line_end
    saved.path.write_bytes(text.encode(encoding))
    assert read_manifest(saved.path).entries == saved.entries


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda text: text.encode("utf-16"), "cannot be read as text: byte 0 is not UTF-8"),
        (lambda text: text.replace("patient-a", "Müller").encode("latin-1"), "is not UTF-8"),
        (lambda text: text.replace("patient-a", "patient\0a").encode(), "it holds NUL characters"),
        (lambda text: text.encode("utf-16-le"), "it holds NUL characters"),
        (lambda text: text.replace(",", ";").encode(), "its cells are separated by ';', expected ','"),
        (lambda text: text.replace(",", "\t").encode(), "its cells are separated by '\\t', expected ','"),
        (lambda text: text.replace("label,", "label,split,", 1).encode(), "column 'split' occurs twice"),
        (lambda text: text.replace("patient-a", "x" * 200_000).encode(), "field larger than field limit (131072)"),
        (lambda text: text.replace("patient-a", '"' + "x\n" * 100_000).encode(), "field larger than field limit"),
        (lambda text: text[:-80].encode(), "row 2 ('a'): has more or fewer cells than the header"),
        (lambda text: text.replace("patient-a", "a,b").encode(), "has more or fewer cells than the header"),
        (lambda text: (text + ",".join(["y" * 100_000] * len(COLUMNS)) + "\n").encode(), "sha256 is 'yyy"),
        (lambda text: b"", "column 'id' is missing"),
        (lambda text: b"\n" * 50, "column 'id' is missing"),
        (lambda text: os.urandom(5000), "cannot be read as text"),
    ],
)
def test_what_is_no_table_is_said_in_short_lines(saved: Manifest, spoil: Callable[[str], bytes], message: str) -> None:
    saved.path.write_bytes(spoil(saved.path.read_text()))
    with pytest.raises(ManifestError) as error:
        read_manifest(saved.path)
    assert any(message in fault for fault in error.value.faults)
    assert len(str(error.value)) < 10_000


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("label", "9" * 5000),
        ("label", "٣"),
        ("label", "1.0"),
        ("label", "+1"),
        ("shape", "x".join(["9" * 5000] * 3)),
        ("shape", "2x3x-4"),
        ("shape", "2x3x4.0"),
        ("shape", "٢x3x4"),
        ("shape", " 2x3x4"),
        ("shape", "2x3x4x"),
        ("spacing", "1e400x1x1"),
        ("spacing", "-1x1x1"),
        ("sha256", "A" * 64),
    ],
)
def test_odd_numbers_are_faults_and_not_crashes(
    saved: Manifest, fault_of: Callable[..., str], column: str, value: str
) -> None:
    edit(saved.path, column, value)
    assert f"row 2 ('a'): {column} is {value!r}, expected" in fault_of(read_manifest, saved.path)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_a_manifest_that_is_no_file_does_not_hang(
    tmp_path: Path, fault_of: Callable[..., str], make: Callable[[Path], None]
) -> None:
    make(tmp_path / "manifest.csv")
    assert "not a file" in fault_of(read_manifest, tmp_path)


def test_names_in_messages_stay_in_their_line(tmp_path: Path, save_row: Callable[..., Entry]) -> None:
    entry = save_row(path="a\nNext: rm -rf\x1b[2J\u202e.npy")
    with pytest.raises(ManifestError) as error:
        Manifest(tmp_path / "manifest.csv", [entry]).open(entry)
    assert str(error.value).count("\n") == 2
    assert r"a\nNext: rm -rf\x1b[2J\u202e.npy (row 'a') does not exist" in str(error.value)


def test_the_error_survives_the_way_out_of_a_worker() -> None:
    error = ManifestError(Path("manifest.csv"), ["one", "two"], "mend them")
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    assert (str(copy), copy.faults, copy.path) == (str(error), error.faults, error.path)


# --- back and forth


@settings(deadline=None, max_examples=60)  # each is flushed to the disk
@given(identity=ANY_TEXT, patient=ANY_TEXT, modality=ANY_TEXT, folder=ANY_TEXT)
def test_odd_names_are_read_back(
    tmp_path_factory: pytest.TempPathFactory, identity: str, patient: str, modality: str, folder: str
) -> None:
    folder = folder.replace("/", "").replace("\\", "").lstrip(".") + "x"
    entry = Entry(
        identity,
        "volume",
        f"{folder}/a.npy",
        None,
        None,
        "train",
        patient,
        modality,
        None,
        (1, 1, 1),
        "uint8",
        "0" * 64,
    )
    path = tmp_path_factory.getbasetemp() / "odd.csv"
    written = write_manifest(path, [entry])
    assert read_manifest(path).entries == (entry,)
    assert read_manifest(path).fingerprint() == written.fingerprint()


@pytest.mark.parametrize("name", ["half \ud800", "nul \0"])
def test_a_name_that_could_not_be_read_back_is_not_written(
    tmp_path: Path, save_row: Callable[..., Entry], name: str
) -> None:
    entry = dataclasses.replace(save_row(), id=name)
    with pytest.raises(ManifestError, match="id holds characters that UTF-8 cannot"):
        write_manifest(tmp_path / "manifest.csv", [entry])
    assert not (tmp_path / "manifest.csv").exists()


def test_twenty_thousand_rows_are_read_within_a_second(tmp_path: Path, save_row: Callable[..., Entry]) -> None:
    rng = np.random.default_rng(0)
    entry = save_row(grid_path="volumes/a.json", label_path="volumes/a-labels.npy")
    entries = [
        dataclasses.replace(entry, id=f"row{number}", patient=f"patient{number}", sha256=rng.bytes(32).hex())
        for number in range(20_000)
    ]
    write_manifest(tmp_path / "manifest.csv", entries)
    start = time.process_time()
    assert len(read_manifest(tmp_path)) == 20_000
    assert time.process_time() - start < 1  # 0.45 on a busy machine, where 100,000 took 2.2
