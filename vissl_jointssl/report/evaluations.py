"""`results.json` files of `jointssl evaluate` and `suite.json` files of its suites, read and checked.

Their form is set by `evaluation/results.py` and `evaluation/suite.py`; they are read as the JSON that they are, because
whoever makes a page need not have what trains.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from vissl_jointssl.report.evaluation_records import Difference, Evaluation, Mean, Run, SuiteRecord

RESULTS_FILE, SUITE_FILE = "results.json", "suite.json"
VERSION = 1


class EvaluationFileError(ValueError):
    """Files of evaluations cannot be shown; the message names every one at fault and the next step."""


def read_evaluations(places: Sequence[Path]) -> tuple[list[Evaluation], list[SuiteRecord]]:
    """Read files, and every `results.json` and `suite.json` at any depth of folders.

    A file that is found twice counts once.

    Raises:
        EvaluationFileError: If a place does not exist, a folder holds no results, a file is damaged, or two evaluations
            of one suite, or of none, have the same name; every fault at once.
    """
    files, faults = _find(places)
    evaluations: list[Evaluation] = []
    suites: list[SuiteRecord] = []
    for path in files:
        try:
            content = _read(path)
            if path.name == SUITE_FILE:
                suites.append(_suite(path, content))
            else:
                evaluations.append(_evaluation(path, content))
        except EvaluationFileError as fault:
            faults.append(str(fault))
    folders = {suite.path.parent.resolve(): suite.name for suite in suites}
    evaluations = [replace(one, suite=folders.get(one.path.resolve().parent.parent, "")) for one in evaluations]
    by_title: dict[str, Path] = {}
    for evaluation in evaluations:
        first = by_title.setdefault(evaluation.title, evaluation.path)
        if first != evaluation.path:
            faults.append(
                f"{first} and {evaluation.path} are both the evaluation {evaluation.title!r}; give one of them, or "
                "run one again with name=..."
            )
    if not evaluations and not any(suite.parameters for suite in suites) and not faults:
        faults.append("no evaluation in it; `jointssl evaluate` writes results.json when it is done")
    if faults:
        raise EvaluationFileError("\n  - ".join(["no page can be made:", *faults]))
    return evaluations, suites


def _find(places: Sequence[Path]) -> tuple[list[Path], list[str]]:
    found: dict[Path, Path] = {}
    faults = []
    for place in places:
        if place.is_file():
            files = [place]
        elif place.is_dir():
            files = sorted(path for path in place.rglob("*.json") if path.name in (RESULTS_FILE, SUITE_FILE))
            if not files:
                faults.append(f"{place}: holds no {RESULTS_FILE} at any depth; `jointssl evaluate` writes it")
        else:
            files = []
            faults.append(f"{place}: does not exist; give {RESULTS_FILE} files or folders that hold them")
        for path in files:
            found.setdefault(path.resolve(), path)
    return list(found.values()), faults


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise EvaluationFileError(f"{path}: cannot be read ({error}); run `jointssl evaluate` again") from error
    if not isinstance(content, dict) or content.get("version") != VERSION:
        found = content.get("version") if isinstance(content, dict) else type(content).__name__
        raise EvaluationFileError(
            f"{path}: is of version {found!r}, expected {VERSION}; run `jointssl evaluate` again with this version"
        )
    return content


def _evaluation(path: Path, content: Mapping[str, Any]) -> Evaluation:
    try:
        runs = tuple(_run(plain) for plain in content["runs"])
        evaluation = Evaluation(
            path=path,
            name=str(content["name"]),
            task=str(content["task"]),
            main_metric=str(content["main_metric"]),
            options=dict(content["options"]),
            weights={str(name): dict(facts) for name, facts in content["weights"].items()},
            data=dict(content["data"]),
            made_with=dict(content["made_with"]),
            runs=runs,
            means=tuple(_mean(plain, runs) for plain in content["summary"]),
            differences=tuple(_difference(plain) for plain in content["comparisons"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise EvaluationFileError(
            f"{path}: is no results file ({type(error).__name__}: {error}); run `jointssl evaluate` again"
        ) from error
    unknown = sorted({run.weights for run in runs} - set(evaluation.weights))
    if unknown or not runs:
        what = f"has runs of {', '.join(unknown)}, which weights does not name" if unknown else "has no runs"
        raise EvaluationFileError(f"{path}: {what}; run `jointssl evaluate` again")
    return evaluation


def _run(plain: Mapping[str, Any]) -> Run:
    return Run(
        weights=str(plain["weights"]),
        fraction=float(plain["fraction"]),
        seed=int(plain["seed"]),
        metrics=_numbers(plain["metrics"]),
        cases={str(name): _numbers(case) for name, case in plain["cases"].items()},
        losses=tuple(_number(loss) for loss in plain["losses"]),
        train_rows=int(plain["train_rows"]),
        seconds=float(plain["seconds"]),
    )


def _mean(plain: Mapping[str, Any], runs: Sequence[Run]) -> Mean:
    weights, fraction, metric = str(plain["weights"]), float(plain["fraction"]), str(plain["metric"])
    mine = [run for run in runs if (run.weights, run.fraction) == (weights, fraction)]
    return Mean(
        weights=weights,
        fraction=fraction,
        metric=metric,
        mean=_number(plain["mean"]),
        deviation=None if plain["deviation"] is None else float(plain["deviation"]),
        seeds=int(plain["seeds"]),
        undefined=sum(math.isnan(run.metrics.get(metric, 0.0)) for run in mine),
    )


def _difference(plain: Mapping[str, Any]) -> Difference:
    return Difference(
        weights=str(plain["weights"]),
        against=str(plain["against"]),
        fraction=float(plain["fraction"]),
        metric=str(plain["metric"]),
        cases=int(plain["cases"]),
        difference=_number(plain["difference"]),
        low=_number(plain["low"]),
        high=_number(plain["high"]),
        p_value=_number(plain["p_value"]),
    )


def _suite(path: Path, content: Mapping[str, Any]) -> SuiteRecord:
    try:
        return SuiteRecord(
            path=path,
            name=str(content["name"]),
            failed={str(one["name"]): str(one["fault"]) for one in content["evaluations"] if one["fault"]},
            left_out=[str(name) for name in content["left_out"]],
            parameters={str(name): int(count) for name, count in content["parameters"].items()},
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise EvaluationFileError(
            f"{path}: is no suite file ({type(error).__name__}: {error}); run `jointssl evaluate` on the suite again"
        ) from error


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    return {str(name): _number(value) for name, value in values.items()}


def _number(value: Any) -> float:
    """JSON has no NaN: null stands for it."""
    return math.nan if value is None else float(value)
