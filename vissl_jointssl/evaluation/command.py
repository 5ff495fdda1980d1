"""`jointssl evaluate`: the command line of `evaluation`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vissl_jointssl.evaluation.plan import Plan
    from vissl_jointssl.evaluation.task import Progress


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    parser.add_argument("plan", type=Path, help="a YAML of configs/evaluation or of its suites, or your own")
    parser.add_argument(
        "changes",
        nargs="*",
        metavar="key=value",
        help="such as weights=[scratch,stage3=runs/mine/stage3], seeds=5, fractions=[0.2,1], manifest=FILE, "
        "out=FOLDER, device=cpu, options.epochs=10",
    )
    parser.epilog = "Finished runs are kept and a killed one goes on: run the same command again."


def run(args: argparse.Namespace) -> int:
    """Evaluate, and print mean and deviation of every start, or where a suite's results are."""
    from tqdm import tqdm

    from vissl_jointssl.evaluation.contract import evaluate
    from vissl_jointssl.evaluation.plan import read_plan
    from vissl_jointssl.evaluation.results import RESULTS_FILE
    from vissl_jointssl.evaluation.suite import is_suite, read_suite
    from vissl_jointssl.evaluation.suite_run import run_suite

    command = ["jointssl", "evaluate", str(args.plan), *args.changes]
    if is_suite(args.plan):
        suite = read_suite(args.plan, args.changes)
        with tqdm(unit="run", desc=suite.name) as bar:
            path = run_suite(suite, lambda plan: _showing(bar, plan), command)
        sys.stdout.write(f"{path}\n")
        return 0
    plan = read_plan(args.plan, args.changes)
    with tqdm(unit="run", desc=plan.name) as bar:
        results = evaluate(plan, _showing(bar, plan), command)
    for row in results.summary:
        if row.metric == results.main_metric:
            spread = "" if row.deviation is None else f" ± {row.deviation:.3f}"
            sys.stdout.write(
                f"{row.weights:>16}  {row.fraction:>5.0%} of labels  {row.metric} {row.mean:.3f}{spread} "
                f"({row.seeds} seed{'s' if row.seeds > 1 else ''})\n"
            )
    sys.stdout.write(f"{plan.out / RESULTS_FILE}\n")
    return 0


def _showing(bar: Any, plan: Plan) -> Progress:
    """Runs move the bar, epochs are said beside it."""
    from vissl_jointssl.evaluation.task import RUN

    bar.reset()

    def show(what: str, done: int, total: int) -> None:
        if not what.startswith(RUN):
            bar.set_postfix_str(f"{what} {done} of {total}")
            return
        bar.total = total
        bar.update(done - bar.n)
        bar.set_description(f"{plan.name}: {what.removeprefix(RUN)}")

    return show
