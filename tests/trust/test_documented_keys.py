"""Every key that we offer is read somewhere, and every key that a document names exists."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import textwrap
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from vissl_jointssl.evaluation import plan, suite
from vissl_jointssl.evaluation.tasks import TASKS, build_task
from vissl_jointssl.plugin.collapse_limits import CollapseOptions
from vissl_jointssl.plugin.config_faults import OUR_KEYS, OUR_LOSSES, TRUNK_SECTION, _vissl_defaults
from vissl_jointssl.plugin.options import RunOptions, TrunkOptions
from vissl_jointssl.preparation.recipe import Options, Recipe
from vissl_jointssl.training import recipe
from vissl_jointssl.views import FAMILIES, ChannelRecipe

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "vissl_jointssl"
DOCUMENTS = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "tools").glob("*.md")]
OPTIONS = (RunOptions, TrunkOptions, CollapseOptions, ChannelRecipe, *FAMILIES.values(), Options, Recipe)
CASES = [(kind, field.name) for kind in dict.fromkeys(OPTIONS) for field in dataclasses.fields(kind)]
TABLES = [(module, name) for module, names in ((recipe, ("KEYS", "STAGE_KEYS")), (plan, ("KEYS",)),
                                               (suite, ("KEYS", "STEP_KEYS"))) for name in names]  # fmt: skip


@cache
def _trees() -> dict[Path, ast.Module]:
    return {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(PACKAGE.rglob("*.py"))}


@cache
def _reads() -> dict[str, set[str]]:
    """Attribute and key names that are read, with the classes inside which they are ("" outside of any)."""
    found: dict[str, set[str]] = {}
    for tree in _trees().values():
        for name, owner in _walk(tree, ""):
            found.setdefault(name, set()).add(owner)
    return found


def _walk(node: ast.AST, owner: str) -> Iterator[tuple[str, str]]:
    for child in ast.iter_child_nodes(node):
        inside = child.name if isinstance(child, ast.ClassDef) else owner
        if isinstance(child, ast.Attribute) and isinstance(child.ctx, ast.Load):
            yield child.attr, owner
        if isinstance(child, ast.Call) and isinstance(child.func, ast.Attribute) and child.func.attr == "get":
            yield from ((one.value, owner) for one in child.args[:1] if isinstance(one, ast.Constant))
        if isinstance(child, ast.Subscript) and isinstance(child.slice, ast.Constant):
            yield str(child.slice.value), owner
        yield from _walk(child, inside)


@pytest.mark.parametrize(("kind", "name"), CASES, ids=[f"{kind.__name__}.{name}" for kind, name in CASES])
def test_every_option_is_read_by_something_beside_its_own_class(kind: type, name: str) -> None:
    # Checking a value does not use it. A method of the class that others call, such as a property, does.
    own = {name: _attributes(method) for name, method in vars(kind).items() if callable(method) or _is_property(method)}
    through = [method for method, read in own.items() if name in read and not method.startswith("__") and
               method != "faults"]  # fmt: skip
    readers = set().union(*(_reads().get(word, set()) for word in (name, name.upper(), *through)))
    assert readers - {kind.__name__}, f"{kind.__name__}.{name} is read by nothing"


def _is_property(member: object) -> bool:
    return isinstance(member, property)


def _attributes(member: Any) -> set[str]:
    function = member.fget if _is_property(member) else member
    try:
        source = textwrap.dedent(inspect.getsource(function))
    except (OSError, TypeError):
        return set()
    return {node.attr for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Attribute)}


def test_an_option_that_nothing_reads_would_be_seen() -> None:
    assert "an_option_that_nothing_reads" not in _reads()
    assert "mask_ratio" in _reads()


@pytest.mark.parametrize("name", OUR_LOSSES)
def test_every_parameter_of_a_loss_is_used_in_it(name: str) -> None:
    tree = ast.parse(textwrap.dedent(inspect.getsource(OUR_LOSSES[name].__init__)))
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    parameters = set(inspect.signature(OUR_LOSSES[name]).parameters)
    assert parameters <= used, parameters - used


@pytest.mark.parametrize("task", TASKS)
def test_every_option_of_a_task_is_read(task: str) -> None:
    defaults = {"probe": {"of": "slices"}}.get(task, {})
    kind = type(build_task(task, defaults))
    unread = [field.name for field in dataclasses.fields(kind) if field.name not in _reads()]
    assert not unread, f"task {task}: options {unread} are read by nothing"


@pytest.mark.parametrize(("module", "table"), TABLES, ids=lambda item: getattr(item, "__name__", item))
def test_every_key_of_a_yaml_of_ours_is_looked_up(module: Any, table: str) -> None:
    source = Path(inspect.getfile(module)).read_text(encoding="utf-8")
    looked_up = {name for name, _ in _walk(ast.parse(source), "")}
    known = set(getattr(module, table)) - {"weights"}  # of plans and suites: by a function of its own
    # `seeds`, `fractions` and `device` of a plan, and what a suite hands on, are keys of a mapping as well
    assert known <= looked_up, known - looked_up


# --- documents


def _names(pattern: str) -> Iterator[tuple[str, str]]:
    for document in DOCUMENTS:
        for name in re.findall(pattern, document.read_text(encoding="utf-8")):
            yield document.relative_to(ROOT).as_posix(), name.rstrip(".")


def _unknown(path: str) -> str | None:
    """The first part of a path below `config` that does not exist; None where all do."""
    known: Any = _vissl_defaults()
    parts = path.split(".")
    for number, part in enumerate(parts):
        here = ".".join(parts[: number + 1])
        if here in OUR_KEYS or not isinstance(known, Mapping) or not known:
            return None  # ours are the next test's; what is below a list or an empty section is free
        if part not in known:
            return here
        known = known[part]
    return None


def test_every_key_of_a_config_in_a_document_exists() -> None:
    named = list(_names(r"config\.([A-Z][A-Za-z_0-9.]+)"))
    assert len(named) > 5
    assert not [(where, path) for where, path in named if _unknown(path)]
    assert _unknown("OPTIMIZER.num_epocs") == "OPTIMIZER.num_epocs"


def test_every_key_of_our_sections_in_a_document_exists() -> None:
    of_run = {field.name.upper() for field in dataclasses.fields(RunOptions)} | {"RECORD"}
    of_trunk = {field.name.upper() for field in dataclasses.fields(TrunkOptions)}
    of_collapse = {field.name.upper() for field in dataclasses.fields(CollapseOptions)}
    named = list(_names(r"((?:MODEL\.TRUNK\.)?JOINT_SSL\.[A-Z_]+(?:\.[A-Z_]+)?)"))
    assert named
    for where, path in named:
        section, *rest = path.removeprefix("MODEL.TRUNK.JOINT_SSL.").removeprefix("JOINT_SSL.").split(".")
        known = of_trunk if path.startswith(TRUNK_SECTION) else of_run
        assert section in known, f"{where}: {path}"
        if rest and section == "COLLAPSE":
            assert rest[0] in of_collapse, f"{where}: {path}"
