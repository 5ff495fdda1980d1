"""Taking times fairly: contestants by turns on the same cases, medians and quartiles, and on what machine."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

Case = TypeVar("Case")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Timing:
    """What one contestant took, seconds, once per case."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """Seconds."""
        return statistics.median(self.seconds)

    @property
    def quartiles(self) -> tuple[float, float]:
        """A quarter of the cases took less than the first, a quarter more than the second; seconds."""
        if len(self.seconds) == 1:
            return self.seconds[0], self.seconds[0]
        first, _, third = statistics.quantiles(self.seconds, n=4, method="inclusive")
        return first, third

    def summary(self) -> dict[str, float]:
        """For JSON."""
        first, third = self.quartiles
        return {"median": self.median, "first_quartile": first, "third_quartile": third}


def time_by_turns(
    contestants: Mapping[str, Callable[[Case], Result]],
    cases: Sequence[Case],
    check: Callable[[Case, Mapping[str, Result]], None],
) -> dict[str, Timing]:
    """Let every contestant do every case, A B C A B C, so that a machine that slows down slows them all.

    Args:
        contestants: By name.
        cases: What each does; results of one case are held together.
        check: Called untimed after each case with every result; raises where they differ.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for case in cases:
        results = {}
        for name, contestant in contestants.items():
            start = time.perf_counter()
            results[name] = contestant(case)
            seconds[name].append(time.perf_counter() - start)
        check(case, results)
    return {name: Timing(tuple(taken)) for name, taken in seconds.items()}


def machine(packages: Sequence[str]) -> dict[str, Any]:
    """Cores that this process may use, processor, versions of Python and of `packages`, and our commit."""
    return {
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "processor": _processor(),
        "versions": {"python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in sorted(packages)},
        "commit": _commit(),
    }


def machine_line(found: Mapping[str, Any]) -> str:
    """What `machine` found, in one line."""
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    return f"{found['cores']} cores, {found['processor']}; {versions}; commit {found['commit']}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _commit() -> str:
    """Short hash of the checkout that holds the package, with + for changed files; "unknown" outside of one."""
    here = Path(__file__).resolve().parent
    answers = []
    commands = (
        ["ls-files", "--error-unmatch", Path(__file__).name],  # an environment may lie in somebody else's checkout
        ["rev-parse", "--short", "HEAD"],
        ["status", "--porcelain", "--untracked-files=no"],
    )
    for words in commands:
        try:
            git = subprocess.run(["git", *words], cwd=here, capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            return "unknown"
        answers.append(git.stdout.strip())
    _, commit, changed = answers
    return commit + ("+" if changed else "")
