"""No line of the package or its tools can run what is in a file: looked for in the syntax tree, not by grep."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted(path for folder in ("vissl_jointssl", "tools") for path in (ROOT / folder).rglob("*.py"))
CODE_LOADERS = {  # modules that unpickle, execute or build objects by name
    "cloudpickle", "dill", "hydra.utils", "jsonpickle", "joblib", "marshal", "runpy", "shelve", "torch.hub",
}  # fmt: skip
NETWORK = {"aiohttp", "ftplib", "http", "httpx", "requests", "smtplib", "socket", "urllib3", "urllib.request", "wandb",
           "sentry_sdk", "boto3", "huggingface_hub"}  # fmt: skip
BUILTINS = {"eval", "exec", "compile", "__import__"}
FORBIDDEN_CALLS = {
    "os.system", "os.popen", "pickle.load", "pickle.loads", "pickle.Unpickler",
    "yaml.load", "yaml.load_all", "yaml.full_load", "yaml.unsafe_load", "torch.hub.load", "torch.package",
    "instantiate", "get_class", "get_method",
}  # fmt: skip
DOWNLOADERS = {"tools/fetch_demo_volumes.py"}  # a program of its own, called by name to fetch; nothing imports it
# A pair of sockets within a process, which is what `signal.set_wakeup_fd` writes to: nothing else of `socket`.
WITHIN_THE_PROCESS = {"vissl_jointssl/plugin/stop_signals.py"}
# Modules named in code: each takes a name of a fixed table, never one of a file. See the tests of each.
IMPORT_BY_NAME = {
    "vissl_jointssl/cli.py",
    "vissl_jointssl/speed/measures.py",
    "vissl_jointssl/evaluation/tasks.py",
    "vissl_jointssl/export/account.py",
    "vissl_jointssl/export/registry.py",
    "vissl_jointssl/plugin/compat/old_names.py",
    "vissl_jointssl/plugin/registration.py",
    "vissl_jointssl/preparation/datasets/__init__.py",
}


def dotted(node: ast.expr) -> str:
    """`a.b.c` of a call's function; what is not a plain chain is its last name."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([*([node.id] if isinstance(node, ast.Name) else []), *reversed(parts)])


def constant(call: ast.Call, keyword: str) -> object:
    """The literal given for a keyword; Ellipsis where none is, or no literal."""
    for word in call.keywords:
        if word.arg == keyword:
            return word.value.value if isinstance(word.value, ast.Constant) else None
    return ...


def faults(source: str) -> Iterator[str]:
    """What in a module could run what a file says."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [one.name for one in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            more = [f"{node.module}.{one.name}" for one in node.names] if isinstance(node, ast.ImportFrom) else []
            for name in [*names, *more]:
                if name in CODE_LOADERS or name.split(".")[0] in CODE_LOADERS:
                    yield f"line {node.lineno} imports {name}"
        if not isinstance(node, ast.Call):
            continue
        name = dotted(node.func)
        last = name.rsplit(".", 1)[-1]
        builtin = isinstance(node.func, ast.Name) and name in BUILTINS  # not a module's `eval()`
        if builtin or name in FORBIDDEN_CALLS or last in ("extractall", "unpack_archive", "instantiate", "unsafe_load"):
            yield f"line {node.lineno} calls {name}"
        elif name == "torch.load" and constant(node, "weights_only") is not True:
            yield f"line {node.lineno} calls torch.load without weights_only=True"
        elif name in ("np.load", "numpy.load", "np.lib.format.read_array") and constant(node, "allow_pickle") not in (
            ...,
            False,
        ):
            yield f"line {node.lineno} lets {name} unpickle"
        elif constant(node, "shell") not in (..., False):
            yield f"line {node.lineno} runs a shell"
        elif last == "import_module" and not (node.args and isinstance(node.args[0], ast.Constant)):
            yield f"line {node.lineno} imports by name"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_nothing_in_a_module_runs_what_a_file_says(path: Path) -> None:
    name = path.relative_to(ROOT).as_posix()
    found = list(faults(path.read_text(encoding="utf-8")))
    if name in IMPORT_BY_NAME:
        found = [fault for fault in found if not fault.endswith("imports by name")]
    assert not found, f"{name}: {found}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_module_can_open_a_connection(path: Path) -> None:
    name = path.relative_to(ROOT).as_posix()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [one.name for one in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [node.module or "", *(f"{node.module}.{one.name}" for one in node.names)]
        opened = [one for one in names if one in NETWORK or one.split(".")[0] in NETWORK]
        if name in WITHIN_THE_PROCESS and opened == ["socket"]:
            continue
        if isinstance(node, ast.Call) and dotted(node.func).startswith("socket."):
            assert dotted(node.func) == "socket.socketpair", f"{name}, line {node.lineno}"
        assert not opened or name in DOWNLOADERS, f"{name}, line {node.lineno}: imports {opened}"


def test_no_yaml_of_ours_has_a_target_or_a_tag() -> None:
    for path in sorted((ROOT / "configs").rglob("*.yaml")):
        text = path.read_text(encoding="utf-8")
        assert "_target_" not in text, path
        assert "!!" not in text, path


@pytest.mark.parametrize(
    "line",
    [
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "torch.load(path, weights_only=flag)",
        "np.load(path, allow_pickle=True)",
        "pickle.loads(data)",
        "yaml.load(stream, Loader=yaml.FullLoader)",
        "eval(text)",
        "archive.extractall(folder)",
        "hydra.utils.instantiate(config)",
        "import joblib",
        "from hydra.utils import call",
        "subprocess.run(text, shell=True)",
        "importlib.import_module(name)",
    ],
)
def test_each_way_in_would_be_seen(line: str) -> None:
    assert list(faults(line)), line


def test_the_safe_ways_are_taken_for_safe() -> None:
    safe = ("torch.load(path, weights_only=True)", "np.load(path, allow_pickle=False)", "yaml.safe_load(text)")
    assert not list(faults("\n".join((*safe, "build(1).eval()", "np.load(path)"))))
