"""docs/reliability.md names tests that exist, and says of each whether it is slow."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROWS = [line for line in (ROOT / "docs" / "reliability.md").read_text().splitlines() if line.startswith("| ")][1:]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.split("|")[1].strip()[:40])
def test_every_test_that_a_row_names_exists(row: str) -> None:
    hazard, promise, tests, _, _ = (cell.strip() for cell in row.strip("|").split("|"))
    assert hazard
    assert promise
    files = re.findall(r"`(tests/[\w/]+\.py)`((?:: (?:(?:, | ?and |\*slow\* )*`test_\w+`)+)?)", tests)
    assert files, f"{hazard}: no test"
    named = 0
    for file, names in files:
        body = ast.parse((ROOT / file).read_text(encoding="utf-8")).body
        source = [node for node in body if isinstance(node, ast.FunctionDef)]
        for slow, name in re.findall(r"(\*slow\* )?`(test_\w+)`", names):
            named += 1
            found = [node for node in source if node.name == name]
            assert found, f"{file} has no {name}"
            marked = "pytest.mark.slow" in [ast.unparse(one) for one in found[0].decorator_list]
            assert marked == bool(slow), f"{name}: slow is {marked}"
    assert named == len(re.findall(r"`test_\w+`", tests)), f"{hazard}: a test without its file"
