"""`jointssl doctor`: what is wrong with a folder of scans or a prepared one, and whether training may start."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from vissl_jointssl.atomic_file import write_at_once
from vissl_jointssl.preparation.cache.folder_lock import only_run_in
from vissl_jointssl.preparation.doctor.checkup import Checkup, Progress, check_prepared, check_raw
from vissl_jointssl.preparation.doctor.machine_report import as_json
from vissl_jointssl.preparation.doctor.preview import preview
from vissl_jointssl.preparation.doctor.table import as_table
from vissl_jointssl.preparation.errors import PreparationError, printable
from vissl_jointssl.preparation.recipe import Options, Recipe
from vissl_jointssl.preparation.workers import usable_cores

if TYPE_CHECKING:
    from tqdm import tqdm


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `jointssl doctor`."""
    parser.add_argument("folder", type=Path, help="a prepared folder, or one of raw scans")
    parser.add_argument("--recipe", metavar="NAME", help="raw scans of this data set, as in `jointssl prepare --list`")
    parser.add_argument("--modality", type=str.upper, help="of raw volumes; default: told from each scan")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="report for machines; - is stdout, and nothing else then"
    )
    parser.add_argument("--preview", type=Path, metavar="FILE.png", help="a page with a slice of up to 48 scans")
    parser.add_argument(
        "--quarantine", action="store_true", help="list faulty rows in quarantine.csv, which training honours"
    )
    parser.add_argument("--no-hash", action="store_true", help="do not compare prepared arrays with their sha256")
    parser.add_argument("--jobs", type=int, metavar="N", help="worker processes; default: one for each core")
    parser.add_argument(
        "--timeout", type=float, default=900.0, metavar="S", help="seconds for one scan; default: %(default)g"
    )


def run(args: argparse.Namespace) -> int:
    """Look at everything and say it; returns the exit status, 0 where training may start and 1 where it may not.

    Raises:
        PreparationError: If there is nothing to look at, something was asked for that cannot be, or a report cannot be
            written.
    """
    jobs = args.jobs or usable_cores()
    if jobs < 1 or not args.timeout > 0:
        raise PreparationError(f"--jobs {jobs} and --timeout {args.timeout:g}: expected 1 or more, and seconds")
    checkup, root, options = _checkup(args, jobs)
    text = json.dumps(as_json(checkup, printable(args.folder)), indent=1) + "\n"
    alone = str(args.json) == "-"
    sys.stdout.write(text if alone else as_table(checkup, printable(args.folder)))
    sys.stdout.flush()
    if args.json is not None and not alone:
        _write(text.encode("ascii"), args.json)
    if args.preview is not None:
        _write(preview(checkup, root, options, jobs, args.timeout), args.preview)
    return 1 if checkup.errors else 0


def _write(data: bytes, path: Path) -> None:
    try:
        write_at_once(data, path)
    except OSError as error:
        raise PreparationError(
            f"{printable(path)}: cannot be written ({error.strerror}). Next: name a file in a folder of yours"
        ) from None


def _checkup(args: argparse.Namespace, jobs: int) -> tuple[Checkup, Path, Options]:
    """What was found, and the folder and options to look at its scans again with."""
    folder = args.folder
    if not folder.is_dir():
        raise PreparationError(f"{printable(folder)}: is not a folder. Next: give a prepared folder or one of scans")
    prepared = (folder / "manifest.csv").exists() and args.recipe is None
    if not prepared and args.quarantine:
        raise PreparationError(
            f"{printable(folder)}: only rows of a prepared folder can be in quarantine, and it has no manifest.csv. "
            "Next: mend or remove what is faulty, or leave it out with `jointssl prepare --keep-going`"
        )
    recipe = None if prepared else _recipe(folder, args.recipe, args.modality)
    from tqdm import tqdm

    with tqdm(unit="scan", desc="doctor", disable=None) as bar:
        progress = _shown_on(bar)
        if recipe is not None:
            return check_raw(recipe, jobs, args.timeout, progress), Path(recipe.root), recipe.options
        with _alone_in(folder) if args.quarantine else nullcontext():
            checkup = check_prepared(
                folder, jobs, args.timeout, progress, with_hash=not args.no_hash, quarantine=args.quarantine
            )
        return checkup, folder, Options()


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """No preparation changes the rows between their examination and the writing of the list."""
    try:
        with only_run_in(folder):
            yield
    except OSError as error:
        raise PreparationError(
            f"{printable(folder)}: quarantine.csv cannot be written ({error.strerror}). Next: give yourself "
            "permission to write there, or leave --quarantine out"
        ) from None


def _shown_on(bar: tqdm[NoReturn]) -> Progress:
    def show(done: int, total: int) -> None:
        bar.total = total
        bar.update(done - bar.n)

    return show


def _recipe(folder: Path, name: str | None, modality: str | None) -> Recipe:
    """Of a data set, or of all that lies in a folder."""
    if name is not None:
        from vissl_jointssl.preparation.datasets import data_set_recipe

        return data_set_recipe(name, folder)
    if (folder / ".records").is_dir():
        raise PreparationError(
            f"{printable(folder)}: a preparation of it did not come to its end, so there is no manifest.csv. Next: run "
            "the same `jointssl prepare` again, which goes on where it stopped"
        )
    from vissl_jointssl.preparation.sources.finding import find_sources

    sources = find_sources(folder, modality)
    if not sources:
        raise PreparationError(
            f"{printable(folder)}: holds no scan, and no manifest.csv. Next: give a prepared folder or one of scans"
        )
    return Recipe(folder.name, folder, tuple(sources))
