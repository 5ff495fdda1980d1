"""Where an array lies in its scan: read back exactly, refused where it is not that."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from vissl_jointssl.manifest import Entry, Grid, Manifest, ManifestError, write_grid

AFFINE = np.array([[0.1, 2, 0, -3], [1 / 3, 0, 0, 4], [0, 0, -1e-7, 5], [0, 0, 0, 1]])


def content(**changes: object) -> dict[str, object]:
    return {"affine": AFFINE.tolist(), "source_affine": np.eye(4).tolist(), "source_shape": [5, 6, 7]} | changes


def test_a_grid_is_read_back_to_the_last_bit(tmp_path: Path, save_row: Callable[..., Entry]) -> None:
    write_grid(Grid(AFFINE, np.eye(4, dtype=np.float32), (5, 6, np.int64(7))), tmp_path / "grids" / "a.json")
    entry = save_row(grid_path="grids/a.json")
    grid = Manifest(tmp_path / "manifest.csv", [entry]).open_grid(entry)
    np.testing.assert_array_equal(grid.affine, AFFINE)
    np.testing.assert_array_equal(grid.source_affine, np.eye(4))
    assert grid.source_shape == (5, 6, 7)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is no JSON"),
        ("[1]", "is no grid (TypeError)"),
        ("{}", "is no grid (KeyError)"),
        ("[" * 30_000 + "]" * 30_000, "nested too deeply"),
        (json.dumps(content()).replace("0.1", "NaN", 1), "holds NaN"),
        (json.dumps(content()).replace("0.1", "1e999", 1), "is no grid (an affine is not 4x4 finite numbers)"),
        (json.dumps(content(affine=[[1, 2], [3]])), "is no grid (ValueError)"),
        (json.dumps(content(affine=[[10**400] * 4] * 4)), "is no grid (OverflowError)"),
        (json.dumps(content(affine={"a": 1})), "is no grid (TypeError)"),
        (json.dumps(content(source_affine=np.eye(3).tolist())), "is no grid (an affine is not 4x4 finite numbers)"),
        (json.dumps(content(source_shape=[5, 6])), "is no grid (ValueError)"),
        (json.dumps(content(source_shape=7)), "is no grid (TypeError)"),
        (json.dumps(content(source_shape=[5, 6, 0])), "source_shape is not three positive whole numbers"),
        (json.dumps(content(source_shape=[5, 6, -7])), "source_shape is not three positive whole numbers"),
        (json.dumps(content(source_shape=[5, 6, 7.5])), "source_shape is not three positive whole numbers"),
        (json.dumps(content(source_shape="567")), "source_shape is not three positive whole numbers"),
        (json.dumps(content()) + " " * 2**16, "expected at most 65536"),
    ],
)
def test_what_is_no_grid_is_one_clear_fault(
    tmp_path: Path, save_row: Callable[..., Entry], fault_of: Callable[..., str], text: str, message: str
) -> None:
    (tmp_path / "a.json").write_text(text)
    entry = save_row(grid_path="a.json")
    fault = fault_of(Manifest(tmp_path / "manifest.csv", [entry]).open_grid, entry)
    assert fault.startswith("a.json (row 'a') ")
    assert message in fault


def test_a_missing_grid_and_a_row_without_one_are_told_apart(tmp_path: Path, save_row: Callable[..., Entry]) -> None:
    manifest = Manifest(tmp_path / "manifest.csv", [])
    with pytest.raises(ManifestError, match="row 'a' has no grid"):
        manifest.open_grid(save_row())
    with pytest.raises(ManifestError, match=r"b.json \(row 'a'\) does not exist"):
        manifest.open_grid(save_row(grid_path="b.json"))
