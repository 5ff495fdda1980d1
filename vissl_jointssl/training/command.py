"""`jointssl train`: the command line of `training`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from vissl_jointssl.training import Recipe, RunStopped, announce, look_ahead, plan, read_recipe, train
from vissl_jointssl.training.preflight_table import preflight_table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    parser.add_argument("recipe", type=Path, help="a YAML of configs/recipes, or your own")
    parser.add_argument(
        "changes",
        nargs="*",
        metavar="key=value",
        help="run=FOLDER, manifest=FILE or [FILE,FILE], device=auto|cpu|gpu or processes=N in place of the recipe's",
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, and stop")
    parser.add_argument(
        "--plan",
        action="store_true",
        help="take a few steps of each stage in a scratch folder, say what time, memory, disk, /dev/shm and workers "
        "the recipe takes, here and on more GPUs, and stop",
    )
    parser.add_argument("--json", action="store_true", help="with --plan: JSON instead of a table")
    parser.epilog = (
        "Finished stages are skipped and a killed one goes on: run the same command again. Ctrl-C, SIGTERM or SIGUSR1 "
        "ends a stage after a step, with a checkpoint (exit code 130 for Ctrl-C, else 75); a second one at once."
    )


def run(args: argparse.Namespace) -> int:
    """Train, and print where the last checkpoint is; or, if a signal stopped it, what it goes on from.

    Returns:
        Exit code: 0, or 75 for a run that was asked to stop, 130 if by Ctrl-C: the same command goes on. With --plan 1
        if the recipe would not work here.

    Raises:
        ValueError: For --json without --plan, and if the recipe cannot be run.
    """
    if args.json and not args.plan:
        raise ValueError("--json is how --plan prints; add --plan")
    recipe = read_recipe(args.recipe, args.changes)
    if args.dry_run:
        announce(recipe, plan(recipe), say=_print)
        return 0
    try:
        if args.plan:
            return _measure(recipe, as_json=args.json)
        _print(f"done: {train(recipe, say=_print)}")
    except RunStopped as stopped:
        sys.stderr.write(f"jointssl train: {'not measured' if args.plan else stopped.said}\n")
        return stopped.code
    return 0


def _measure(recipe: Recipe, as_json: bool) -> int:
    found = look_ahead(recipe)
    _print(json.dumps(found.to_dict(), indent=2, allow_nan=False) if as_json else preflight_table(found))
    return 1 if found.problems else 0


def _print(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
