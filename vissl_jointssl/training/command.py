"""`jointssl train`: the command line of `training`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from vissl_jointssl.training import announce, plan, read_recipe, train


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
    parser.epilog = "Finished stages are skipped and a killed one goes on: run the same command again."


def run(args: argparse.Namespace) -> int:
    """Train, and print where the last checkpoint is."""
    recipe = read_recipe(args.recipe, args.changes)
    if args.dry_run:
        announce(recipe, plan(recipe), say=_print)
    else:
        _print(f"done: {train(recipe, say=_print)}")
    return 0


def _print(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
