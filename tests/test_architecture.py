"""The walls of the house."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "vissl_jointssl"
FRAMEWORK = {"vissl", "classy_vision", "fairscale", "hydra", "omegaconf"}
ROOMS = {
    "preparation",
    "views",
    "models",
    "objectives",
    "export",
    "report",
    "training",
    "evaluation",
    "speed",
    "plugin",
}
DOORS = {
    "manifest",
    "checkpoints",
    "spelling",
    "notation",
    "run_signs",
    "atomic_file",
    "process_memory",
    "machine_memory",
}
MAY_ENTER = {
    "plugin": {"models", "objectives", "views"},
    "evaluation": {"models", "views"},
    "export": {"models"},
    "speed": {"preparation", "views", "models", "objectives", "training", "plugin"},
}


def _modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def _imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, late imports too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            yield node.module


def _room(path: Path) -> str | None:
    parts = path.relative_to(PACKAGE).parts
    return parts[0] if len(parts) > 1 and parts[0] in ROOMS else None


@pytest.mark.parametrize("path", _modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_stays_within_its_walls(path: Path) -> None:
    room = _room(path)
    for name in _imports(path):
        top, *rest = name.split(".")
        assert top not in FRAMEWORK or room == "plugin", f"{name} is the plugin's business"
        assert top != "tools"
        if room == "preparation":
            assert top not in ("torch", "torchvision"), f"preparation imports {name}"
        if top == "vissl_jointssl" and rest and room is not None:
            target = rest[0]
            allowed = {room, *DOORS, *MAY_ENTER.get(room, set())}
            assert target in allowed, f"{room} imports {name}"


@pytest.mark.parametrize("folder", ["configs", "tools", "tests"])
def test_no_folder_hides_a_package_of_vissls_wheel(folder: str) -> None:
    # VISSL's wheel installs packages of these names.
    assert not list((PACKAGE.parent / folder).rglob("__init__.py"))


def test_importing_the_package_is_light() -> None:
    code = (
        "import sys, vissl_jointssl.cli; print([m for m in ('torch', 'vissl', 'numpy', 'hydra') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_no_file_of_the_repository_names_this_machine() -> None:
    tracked = subprocess.run(
        ["git", "ls-files", "-z"], cwd=PACKAGE.parent, capture_output=True, text=True, check=True
    ).stdout.split("\0")
    roots = ["/" + word + "/" for word in ("tmp", "work", "root", "farm", "opt", "home")]
    for name in tracked:
        path = PACKAGE.parent / name
        if name and path.suffix in (".py", ".yaml", ".md", ".txt", ".toml", ".cff") and path.is_file():
            text = path.read_text(encoding="utf-8")
            found = [root for root in roots if f'"{root}' in text or f" {root}" in text or f"'{root}" in text]
            assert not found, f"{name} holds {found}"
