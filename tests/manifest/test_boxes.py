"""Boxes beside an image: what is written is read back, and nothing else is taken for boxes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vissl_jointssl.manifest import Box, Entry, Manifest, ManifestError, write_boxes
from vissl_jointssl.manifest.boxes import box_fault, read_boxes


def line(**changes: object) -> dict[str, object]:
    return {"label": 1, "left": 0, "top": 0.5, "right": 4, "bottom": 3} | changes


def test_boxes_are_read_back_and_an_empty_list_is_not_none(tmp_path: Path, save_row: Callable[..., Entry]) -> None:
    boxes = (Box(0, 0.0, 0.5, 4.0, 3.0), Box(13, 1.25, 1.0, 1.5, 2.0))
    entry = save_row(boxes_path="boxes/a.json", shape=(2, 3, 4))
    manifest = Manifest(tmp_path / "manifest.csv", [entry])
    for some in (boxes, ()):
        write_boxes(some, tmp_path / "boxes" / "a.json")
        assert manifest.open_boxes(entry) == some


@given(st.floats(0, 3), st.floats(0, 2), st.floats(0.01, 1), st.integers(0, 10**6))
def test_every_sound_box_has_no_fault_and_survives_json(left: float, top: float, side: float, label: int) -> None:
    box = Box(label, left, top, left + side, top + side)
    assert (box_fault(box, (3, 4)) is None) == (left < left + side and top < top + side)
    assert Box(**json.loads(json.dumps(line(**vars(box))))) == box


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is no JSON"),
        ('[{"label": 1, "le', "is no JSON"),
        (b"\xff\xfe[]", "cannot be read as text: byte 0 is not UTF-8"),
        ("[]\0", "cannot be read as text: it holds NUL characters"),
        ("[" * 100_000 + "]" * 100_000, "nested too deeply"),
        ('{"a":' * 100_000 + "1" + "}" * 100_000, "nested too deeply"),
        ("{}", "is no list of boxes"),
        ("null", "is no list of boxes"),
        ('"text"', "is no list of boxes"),
        ("[[1, 2, 3, 4, 5]]", "is no list of boxes; each has label, left, top, right, bottom"),
        ([line(extra=1)], "is no list of boxes; each has"),
        ('[{"label": 1}]', "is no list of boxes; each has"),
        ('[{"label": 1, "left": NaN, "top": 0, "right": 1, "bottom": 1}]', "holds NaN, an infinity or"),
        ('[{"label": 1, "left": -Infinity, "top": 0, "right": 1, "bottom": 1}]', "holds NaN, an infinity or"),
        ('[{"label": 1, "left": 1e999, "top": 0, "right": 1, "bottom": 1}]', "has an edge that is not a number"),
        ([line(right=10**400)], "leaves the array of 3 x 4 pixels"),
        ('[{"label": ' + "9" * 5000 + ', "left": 0, "top": 0, "right": 1, "bottom": 1}]', "thousands of digits"),
        ([line(left="0")], "has an edge that is not a number"),
        ([line(left=True)], "has an edge that is not a number"),
        ([line(top=None)], "has an edge that is not a number"),
        ([line(label=-1)], "has no class counted from 0"),
        ([line(label=True)], "has no class counted from 0"),
        ([line(label=1.0)], "has no class counted from 0"),
        ([line(label="A" * 100_000)], "has no class counted from 0"),
        ([line(), line(right=0)], "has a box, number 1 from 0, that is empty"),
        ([line(top=3)], "is empty"),
        ([line(right=4.01)], "leaves the array of 3 x 4 pixels"),
        ([line(left=-0.01)], "leaves the array of 3 x 4 pixels"),
        ([line(bottom=3.01)], "leaves the array of 3 x 4 pixels"),
    ],
)
def test_what_is_no_list_of_boxes_is_one_clear_fault(
    tmp_path: Path, save_row: Callable[..., Entry], fault_of: Callable[..., str], content: object, message: str
) -> None:
    data = content if isinstance(content, bytes) else (content if isinstance(content, str) else json.dumps(content))
    (tmp_path / "a.json").write_bytes(data if isinstance(data, bytes) else data.encode())
    entry = save_row(boxes_path="a.json")
    fault = fault_of(Manifest(tmp_path / "manifest.csv", [entry]).open_boxes, entry)
    assert fault.startswith("a.json (row 'a') ")
    assert message in fault


def test_a_file_too_large_for_boxes_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "a.json").open("wb") as file:
        file.truncate(2**33)  # sparse
    with pytest.raises(ValueError, match="has 8589934592 bytes, expected at most 16777216"):
        read_boxes(tmp_path / "a.json", (3, 4))


def test_missing_boxes_and_rows_without_them_are_told_apart(tmp_path: Path, save_row: Callable[..., Entry]) -> None:
    manifest = Manifest(tmp_path / "manifest.csv", [])
    with pytest.raises(ManifestError, match="row 'a' has no boxes"):
        manifest.open_boxes(save_row())
    with pytest.raises(ManifestError, match=r"b.json \(row 'a'\) does not exist"):
        manifest.open_boxes(save_row(boxes_path="b.json"))
