"""docs/paper_to_code.md names only configs, functions and tests that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest


def _rows(root: Path) -> list[list[str]]:
    """Cells of every row of the tables headed "in the paper"."""
    rows, inside = [], False
    for line in (root / "docs" / "paper_to_code.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells[0] == "in the paper":
            inside = True
        elif not line.startswith("|"):
            inside = False
        elif inside and not set(cells[0]) <= set("-"):
            rows.append(cells)
    return rows


def _names(cells: list[str]) -> list[str]:
    return [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]


def test_every_equation_table_and_figure_of_the_paper_has_a_row(root: Path) -> None:
    subjects = [row[0] for row in _rows(root)]
    wanted = [f"Eq. {number}" for number in range(1, 16)]
    wanted += [f"Table {number}" for number in range(1, 9)] + [f"Figure {number}" for number in range(1, 9)]
    missing = [one for one in wanted if not any(re.search(rf"{one}\b", subject) for subject in subjects)]
    assert not missing


def test_every_config_it_names_is_a_file(root: Path) -> None:
    names = _names([row[1] for row in _rows(root)])
    assert names
    for name in names:
        places = [root / "configs" / "config" / f"{name}.yaml", root / "configs" / f"{name}.yaml"]
        assert any(place.is_file() for place in places), name


def test_every_function_it_names_is_defined(root: Path) -> None:
    names = _names([row[2] for row in _rows(root)])
    assert names
    for name in names:
        module, _, attribute = name.rpartition(".")
        path = root / "vissl_jointssl" / f"{module.replace('.', '/')}.py"
        assert path.is_file(), f"{name}: no {path}"
        defined = {getattr(node, "name", None) for node in ast.parse(path.read_text(encoding="utf-8")).body}
        defined |= {
            target.id
            for node in ast.parse(path.read_text(encoding="utf-8")).body
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        assert attribute in defined, f"{name}: {path.name} does not define it"


def test_every_test_it_names_exists(root: Path) -> None:
    names = _names([row[3] for row in _rows(root)])
    assert names
    for name in names:
        file, _, test = name.partition("::")
        path = root / "tests" / file
        assert path.is_file(), name
        assert not test or re.search(rf"^def {test}\b", path.read_text(encoding="utf-8"), flags=re.M), name


@pytest.mark.parametrize("column", [1, 2, 3])
def test_a_row_says_why_where_it_names_nothing(root: Path, column: int) -> None:
    for row in _rows(root):
        assert row[column], f"{row[0]}: column {column} is empty; name something, or say why there is nothing"
