"""What an evaluation is: one YAML of `configs/evaluation`, and what the command line changes of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from vissl_jointssl.spelling import nearest

SCRATCH = "scratch"
MOST_SEEDS = 1000
DEVICES = ("auto", "cpu", "gpu")
KEYS = ("name", "task", "manifest", "weights", "seeds", "fractions", "options", "out", "device")


class PlanError(ValueError):
    """An evaluation cannot be run as it stands; the message names every fault and the next step."""


@dataclass(frozen=True)
class Plan:
    """An evaluation.

    Attributes:
        name: Of the evaluation and its folder.
        task: A name of `tasks.TASKS`.
        manifest: `manifest.csv` of the prepared data, with its splits.
        weights: Start of training by its name in tables; None is a random start.
        seeds: One training run per start, fraction and seed.
        fractions: Shares of the labelled training patients, each a part of the next.
        options: The task's own; see its dataclass.
        out: Folder of the evaluation.
        device: `cpu`, `gpu`, or `auto`: a GPU if there is one.
    """

    name: str
    task: str
    manifest: Path
    weights: Mapping[str, Path | None]
    out: Path
    seeds: tuple[int, ...] = (0,)
    fractions: tuple[float, ...] = (1.0,)
    options: Mapping[str, Any] = field(default_factory=dict)
    device: str = "auto"


def read_plan(path: Path, changes: Sequence[str] = ()) -> Plan:
    """Read an evaluation's YAML.

    Args:
        path: The file.
        changes: `key=value` for any key; `options.KEY=value` for one of the task's. `seeds=5` means 0 to 4,
            `seeds=[3,4]` these two. `weights=FILE`, or several as `weights=[scratch,imagenet=FILE,stage3=FOLDER]`.

    Raises:
        PlanError: With every fault at once.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise PlanError(f"{path}: cannot be read as YAML ({error}); evaluations lie in configs/evaluation") from error
    if not isinstance(content, dict):
        raise PlanError(f"{path}: holds no mapping; evaluations lie in configs/evaluation")
    faults: list[str] = []
    for change in changes:
        faults += _change(content, change)
    faults += [f"{key!r} is read by nothing{nearest(key, KEYS)}" for key in content if key not in KEYS]
    missing = [key for key in ("name", "task", "manifest", "weights") if not content.get(key)]
    faults += [f"{key!r} is missing; give it as {key}=..." for key in missing]
    weights, weight_faults = _weights(content.get("weights") or [])
    seeds, seed_faults = _seeds(content.get("seeds", [0]))
    fractions, fraction_faults = _fractions(content.get("fractions", [1.0]))
    faults += weight_faults + seed_faults + fraction_faults
    options = content.get("options") or {}
    if not isinstance(options, dict):
        faults.append(f"options is {options!r}, expected a mapping")
    faults += [
        f"{key} is {content[key]!r}, expected a path"
        for key in ("manifest", "out")
        if content.get(key) and not isinstance(content[key], str)
    ]
    if content.get("device", "auto") not in DEVICES:
        faults.append(f"device is {content['device']!r}, expected one of {', '.join(DEVICES)}")
    if faults:
        raise PlanError("\n  - ".join([f"{path}: cannot be run:", *faults]))
    return Plan(
        name=str(content["name"]),
        task=str(content["task"]),
        manifest=Path(content["manifest"]),
        weights=weights,
        out=Path(content.get("out") or Path("runs/evaluation") / str(content["name"])),
        seeds=seeds,
        fractions=fractions,
        options=options,
        device=content.get("device", "auto"),
    )


def _change(content: dict[str, Any], change: str) -> list[str]:
    key, separator, text = change.partition("=")
    first, _, option = key.partition(".")
    if not separator or first not in KEYS or (option and first != "options"):
        return [f"{change!r} changes nothing{nearest(first, KEYS)}"]
    if key == "weights":
        content[key] = text[1:-1].split(",") if text.startswith("[") and text.endswith("]") else [text]
        return []
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return [f"{change!r} is not YAML"]
    if option:
        content["options"] = {**(content.get("options") or {}), option: value}
    else:
        content[key] = value
    return []


def _weights(given: Any) -> tuple[dict[str, Path | None], list[str]]:
    """`{name: path}`, or a list of `scratch`, `path` and `name=path`."""
    if isinstance(given, dict):
        items = list(given.items())
    elif isinstance(given, list):
        items = []
        for item in given:
            name, separator, path = str(item).strip().partition("=")
            items.append((name, path) if separator else (Path(name).stem or name, name))
    else:
        return {}, [f"weights is {given!r}, expected a list or a mapping from name to file"]
    faults = []
    weights: dict[str, Path | None] = {}
    for name, path in items:
        if str(name) in weights:
            faults.append(f"two of weights are called {name!r}; name them: weights=[a={path},b=...]")
        if not name or any(letter in "/\\" for letter in str(name)):
            faults.append(f"{name!r} cannot name weights; expected a word")
        if path is not None and not isinstance(path, str):
            faults.append(f"weights {name!r} is {path!r}, expected a file")
            continue
        weights[str(name)] = None if path in (None, SCRATCH) else Path(path)
    return weights, faults


def _seeds(given: Any) -> tuple[tuple[int, ...], list[str]]:
    if isinstance(given, int) and not isinstance(given, bool) and 0 < given <= MOST_SEEDS:
        return tuple(range(given)), []
    numbers = isinstance(given, list) and all(isinstance(seed, int) and seed >= 0 for seed in given)
    if not numbers or not given or len(set(given)) < len(given):
        return (), [
            f"seeds is {given!r}, expected how many, or a list of different numbers from 0; {MOST_SEEDS} at most"
        ]
    return tuple(given), []


def _fractions(given: Any) -> tuple[tuple[float, ...], list[str]]:
    shares = given if isinstance(given, list) else [given]
    if not shares or not all(isinstance(share, int | float) and 0 < share <= 1 for share in shares):
        return (), [f"fractions is {given!r}, expected shares above 0 and up to 1, such as [0.2, 0.4, 1.0]"]
    return tuple(sorted({float(share) for share in shares})), []
