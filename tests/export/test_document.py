"""docs/export.md: its table names every target, and its lines are those of the cards, which test_targets.py runs."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from vissl_jointssl.export.account import ExportAccount
from vissl_jointssl.export.registry import TARGETS
from vissl_jointssl.export.training_config import GREY_DEVIATION, GREY_MEAN, Normalisation

NOT_INSTALLED = ("detectron2", "mmdetection")


@pytest.fixture(scope="module")
def text(root: Path) -> str:
    return (root / "docs" / "export.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def rows(text: str) -> dict[str, tuple[str, str]]:
    """Target -> (name of the file, lines that load it)."""
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| `")]
    return {row[0].strip("`"): (row[1].strip("`"), "\n".join(re.findall(r"`([^`]+)`", row[2]))) for row in cells}


def test_the_table_has_every_target(rows: dict[str, tuple[str, str]]) -> None:
    assert sorted(rows) == sorted(TARGETS)


@pytest.mark.parametrize("target", [target for target in TARGETS if target not in NOT_INSTALLED])
def test_the_lines_of_the_table_are_those_of_the_card(
    target: str, rows: dict[str, tuple[str, str]], exported: Callable[[str], ExportAccount]
) -> None:
    name, lines = rows[target]
    assert lines == exported(target).load_with.replace(exported(target).out.name, name)
    assert len(lines.splitlines()) <= 2


@pytest.mark.parametrize("target", NOT_INSTALLED)
def test_the_lines_for_a_library_that_is_not_installed_are_those_that_the_command_prints(
    target: str, text: str
) -> None:
    known = Normalisation(GREY_MEAN, GREY_DEVIATION, "")
    lines = importlib.import_module(f"vissl_jointssl.export.{target}").TARGET.load_with("f_intra.pth", known)
    assert f"```\n{lines}\n```" in text
