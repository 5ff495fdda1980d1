"""What our hooks measured during a stage, as numbers: `collapse.jsonl` and `masked_baselines.jsonl` (`run_signs`).

Both hold one JSON object a line and are appended to by every resumed run, as VISSL's logs are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from vissl_jointssl.report.curves import LogError, read_lines


@dataclass(frozen=True)
class Series:
    """One measure over the iterations where there was a look; NaN where it could not be taken."""

    iterations: tuple[int, ...]
    values: tuple[float, ...]


@dataclass(frozen=True)
class Measures:
    """The measures of one stage over all its resumed runs.

    Attributes:
        path: The file they were read from.
        series: By name.
        limits: By name of the measure, as the last run had them; empty where there are none.
        warnings: What was said about them, in order.
        problems: What could not be read, one sentence each; empty for a clean file.
    """

    path: Path
    series: Mapping[str, Series]
    limits: Mapping[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


def read_measures(path: Path | str) -> Measures:
    """Read one of the files.

    Where a resumed run goes back to an earlier iteration, its looks replace those of the run before from there on, and
    so do its warnings.

    Raises:
        LogError: If the file is missing or holds no look.
    """
    path = Path(path)
    lines, problems = read_lines(path)
    looks: list[dict[str, float | None]] = []
    warnings: list[tuple[int, str]] = []
    limits: dict[str, float] = {}
    for number, line in lines:
        iteration = line.get("iteration")
        if "limits" in line:
            limits = line["limits"]
        elif not isinstance(iteration, int):
            problems.append(f"line {number} is no look, which has an iteration")
        elif "warning" in line:
            warnings.append((iteration, line["warning"]))
        else:
            while looks and (looks[-1]["iteration"] or 0) >= iteration:
                looks.pop()
            warnings = [warning for warning in warnings if warning[0] < iteration]
            looks.append(line)
    if not looks:
        raise LogError(f"{path}: no look in it; a run takes its first one when it logs its first loss")
    names = list(dict.fromkeys(name for look in looks for name in look if name != "iteration"))
    iterations = tuple(int(look["iteration"] or 0) for look in looks)
    values = {name: tuple(_number(look.get(name)) for look in looks) for name in names}
    return Measures(
        path,
        {name: Series(iterations, values[name]) for name in names},
        limits,
        tuple(text for _, text in warnings),
        tuple(problems),
    )


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
