"""Several evaluations as one: a table or a figure of the paper.

A suite is a YAML of `configs/evaluation/suites`:

| key | what |
|---|---|
| `name` | of the suite |
| `out` | its folder; each evaluation has a folder of its own in it |
| `weights` | starts by name; `scratch` stands for a random one |
| `evaluations` | a list, see below |
| `parameters` | presets whose parameters are counted (Table 7) |

An evaluation has `plan`, a YAML relative to the suite's folder; `starts`, names of `weights`, by default all; and
`set`, what is changed of the plan: any of its keys, or `options.KEY`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from vissl_jointssl.evaluation.plan import SCRATCH, Plan, PlanError, read_plan
from vissl_jointssl.models.attention_axis import PRESETS
from vissl_jointssl.spelling import nearest

KEYS = ("name", "out", "weights", "evaluations", "parameters")
STEP_KEYS = ("plan", "starts", "set")
EVERYWHERE = ("seeds", "fractions", "device")  # a suite's command line sets these of every plan


class SuiteError(ValueError):
    """A suite cannot be run, or evaluations of it failed; the message names every fault."""


@dataclass(frozen=True)
class Suite:
    """A suite whose plans have been read.

    Attributes:
        name: Of the suite.
        out: Its folder.
        plans: What to run, in order; their names differ.
        left_out: Starts that the suite compares and nobody gave weights for.
        parameters: Presets to count.
    """

    name: str
    out: Path
    plans: tuple[Plan, ...]
    left_out: tuple[str, ...] = ()
    parameters: tuple[str, ...] = ()


def is_suite(path: Path) -> bool:
    """Whether a YAML is a suite and not a plan; a file that cannot be read is neither, and `read_plan` says why."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return False
    return isinstance(content, dict) and ("evaluations" in content or "parameters" in content)


def read_suite(path: Path, changes: Sequence[str] = ()) -> Suite:
    """Read a suite and every plan of it.

    Args:
        path: The YAML.
        changes: `weights=[scratch,NAME=FILE]` in place of the suite's: evaluations then use those of their starts that
            are given. `out=FOLDER`. `seeds=`, `fractions=` and `device=` of every plan.

    Raises:
        SuiteError: With every fault of the suite and its plans at once.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise SuiteError(f"{path}: cannot be read as YAML ({error}); see configs/evaluation/suites") from error
    if not isinstance(content, dict):
        raise SuiteError(f"{path}: holds no mapping; see configs/evaluation/suites")
    faults = [f"{key!r} is read by nothing{nearest(str(key), KEYS)}" for key in content if key not in KEYS]
    faults += [f"{key!r} is missing" for key in ("name", "out") if not content.get(key)]
    weights, out, everywhere, change_faults = _changed(content, changes)
    steps = content.get("evaluations") or []
    parameters = content.get("parameters") or []
    faults += change_faults + _shape_faults(steps, parameters)
    if faults:
        raise SuiteError("\n  - ".join([f"{path}: cannot be run:", *faults]))
    plans = [_plan(path.parent, step, weights, out, everywhere, faults) for step in steps]
    wanted = dict.fromkeys(name for step in steps for name in step.get("starts") or weights)
    faults += [f"weights {name!r} is no start of any evaluation{nearest(name, wanted)}" for name in weights
               if steps and name not in wanted]  # fmt: skip
    names = [plan.name for plan in plans if plan]
    faults += [
        f"two evaluations are called {n!r}; name one with set: {{name: ...}}" for n in set(names) if names.count(n) > 1
    ]
    if faults:
        raise SuiteError("\n  - ".join([f"{path}: cannot be run:", *faults]))
    left_out = tuple(name for name in wanted if name not in weights)
    return Suite(str(content["name"]), out, tuple(plan for plan in plans if plan), left_out, tuple(parameters))


def _changed(content: Mapping[str, Any], changes: Sequence[str]) -> tuple[dict[str, str], Path, list[str], list[str]]:
    """Weights, folder, what is handed on to every plan, and faults."""
    given = content.get("weights") or {}
    faults = [] if isinstance(given, dict) else [f"weights is {given!r}, expected a mapping from name to file"]
    weights = {str(name): SCRATCH if file is None else str(file) for name, file in given.items()} if not faults else {}
    out, everywhere = Path(str(content.get("out", ""))), []
    for change in changes:
        key, separator, text = change.partition("=")
        if key == "weights" and separator:
            items = text[1:-1].split(",") if text.startswith("[") and text.endswith("]") else [text]
            pairs = [item.strip().partition("=") for item in items]
            weights = {name: file if found else name for name, found, file in pairs}
            faults += [f"{name!r} of weights has no name; say START={name}" for name, found, _ in pairs
                       if not found and name != SCRATCH]  # fmt: skip
        elif key == "out" and text:
            out = Path(text)
        elif key in EVERYWHERE and separator:
            everywhere.append(change)
        else:
            known = ("weights", "out", *EVERYWHERE)
            faults.append(f"{change!r} changes nothing of a suite{nearest(key, known)}")
    return weights, out, everywhere, faults


def _shape_faults(steps: Any, parameters: Any) -> list[str]:
    if not isinstance(steps, list) or not isinstance(parameters, list) or not (steps or parameters):
        return ["evaluations and parameters are lists, and one of them has something in it"]
    faults = [f"parameters: no preset is called {name!r}{nearest(str(name), PRESETS)}" for name in parameters
              if name not in PRESETS]  # fmt: skip
    for number, step in enumerate(steps, start=1):
        if not isinstance(step, dict) or not isinstance(step.get("plan"), str):
            faults.append(f"evaluation {number} is {step!r}, expected a mapping with plan: FILE")
            continue
        faults += [f"evaluation {number}: {key!r} is read by nothing{nearest(str(key), STEP_KEYS)}" for key in step
                   if key not in STEP_KEYS]  # fmt: skip
        if not isinstance(step.get("set") or {}, dict):
            faults.append(f"evaluation {number}: set is {step['set']!r}, expected a mapping from key to value")
        starts = step.get("starts") or []
        if not isinstance(starts, list) or not all(isinstance(start, str) for start in starts):
            faults.append(f"evaluation {number}: starts is {step['starts']!r}, expected a list of names")
    return faults


def _plan(
    folder: Path,
    step: Mapping[str, Any],
    weights: Mapping[str, str],
    out: Path,
    everywhere: Sequence[str],
    faults: list[str],
) -> Plan | None:
    path = folder / step["plan"]
    starts = {name: weights[name] for name in step.get("starts") or weights if name in weights}
    if not starts:
        faults.append(
            f"{path}: none of its starts {', '.join(step.get('starts') or [])} has weights; give weights=[...]"
        )
        return None
    # Not JSON: its 1e-05 is a string in YAML.
    changes = [
        f"{key}={yaml.safe_dump(value, default_flow_style=True)}" for key, value in (step.get("set") or {}).items()
    ]
    changes += [f"weights=[{','.join(f'{name}={file}' for name, file in starts.items())}]", *everywhere]
    try:
        plan = read_plan(path, changes)
    except PlanError as error:
        faults.append(str(error))
        return None
    return replace(plan, out=out / plan.name)
