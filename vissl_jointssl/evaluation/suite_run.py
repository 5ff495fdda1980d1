"""Running a suite: everything is checked first, then one evaluation follows the other.

`suite.json` in the suite's folder says what became of each; `jointssl report FOLDER` makes a page of it all.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from vissl_jointssl.atomic_file import write_at_once
from vissl_jointssl.evaluation.contract import evaluate
from vissl_jointssl.evaluation.plan import Plan
from vissl_jointssl.evaluation.results import RESULTS_FILE
from vissl_jointssl.evaluation.suite import Suite, SuiteError
from vissl_jointssl.evaluation.suite_check import plan_faults
from vissl_jointssl.evaluation.task import Progress
from vissl_jointssl.models.attention_axis import PRESETS
from vissl_jointssl.models.parameter_counts import count_parameters

SUITE_FILE = "suite.json"
_VERSION = 1
_log = logging.getLogger(__name__)


def run_suite(suite: Suite, progress: Callable[[Plan], Progress], command: Sequence[str] = ()) -> Path:
    """Check every plan, then run them one after the other; finished runs are kept, as in `evaluate`.

    An evaluation that fails, such as by a loss that is NaN, does not keep the next from running.

    Args:
        suite: What to run.
        progress: Gives what is called with the progress of a plan.
        command: The command line, for the record.

    Returns:
        `suite.json`, written after each evaluation.

    Raises:
        SuiteError: If plans do not fit their data or weights, every fault of all at once and before any training; or,
            when all has been tried, if evaluations failed.
    """
    faults = [f"{plan.name}: {fault}" for plan in suite.plans for fault in plan_faults(plan)]
    if faults:
        raise SuiteError("\n  - ".join([f"suite {suite.name} cannot be run:", *faults]))
    for name in suite.left_out:
        _log.info("%s: no weights were given for %s, which it compares too", suite.name, name)
    parameters = {name: _count(name) for name in suite.parameters}
    done: list[dict[str, str | None]] = []
    _write(suite, done, parameters, command)
    for plan in suite.plans:
        fault = None
        try:
            evaluate(plan, progress(plan), command)
        except (ValueError, FloatingPointError) as error:
            fault = str(error)
            _log.error("%s: %s", plan.name, fault)
        done.append({"name": plan.name, "results": f"{plan.out.name}/{RESULTS_FILE}", "fault": fault})
        _write(suite, done, parameters, command)
    failed = [f"{one['name']}: {one['fault']}" for one in done if one["fault"]]
    if failed:
        raise SuiteError(
            "\n  - ".join([f"suite {suite.name}: {len(failed)} of {len(done)} evaluations failed:", *failed])
        )
    return suite.out / SUITE_FILE


def _count(preset: str) -> int:
    chosen = PRESETS[preset]
    return count_parameters(levels=chosen.levels, attention_axis=chosen.attention_axis).total


def _write(
    suite: Suite, done: Sequence[Mapping[str, str | None]], parameters: Mapping[str, int], command: Sequence[str]
) -> None:
    content = {
        "version": _VERSION,
        "name": suite.name,
        "command": " ".join(command),
        "evaluations": list(done),
        "left_out": list(suite.left_out),
        "parameters": dict(parameters),
    }
    write_at_once((json.dumps(content, indent=1) + "\n").encode(), suite.out / SUITE_FILE)
