"""`jointssl train`: the command line of `training`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from vissl_jointssl.training import RunStopped, announce, plan, read_recipe, train


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
    parser.epilog = (
        "Finished stages are skipped and a killed one goes on: run the same command again. Ctrl-C, SIGTERM or SIGUSR1 "
        "ends a stage after a step, with a checkpoint (exit code 130 for Ctrl-C, else 75); a second one at once."
    )


def run(args: argparse.Namespace) -> int:
    """Train, and print where the last checkpoint is; or, if a signal stopped it, what it goes on from.

    Returns:
        Exit code: 0, or 75 for a run that was asked to stop, 130 if by Ctrl-C: the same command goes on.
    """
    recipe = read_recipe(args.recipe, args.changes)
    if args.dry_run:
        announce(recipe, plan(recipe), say=_print)
    else:
        try:
            _print(f"done: {train(recipe, say=_print)}")
        except RunStopped as stopped:
            sys.stderr.write(f"jointssl train: {stopped.said}\n")
            return stopped.code
    return 0


def _print(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
