"""`jointssl report`: the command line of `evaluation_page`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    parser.add_argument(
        "results", nargs="+", type=Path, help="results.json files, or folders that hold some at any depth"
    )
    parser.add_argument("--out", type=Path, default=Path("report.html"), help="the page; default: %(default)s")
    parser.add_argument(
        "--manifest",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help="data to draw predictions on, known by its fingerprint; may be given several times",
    )


def run(args: argparse.Namespace) -> int:
    """Collect, draw, and say where the page is.

    Raises:
        EvaluationFileError: If a file or folder cannot be used; every one at once.
        ManifestError: If a given manifest cannot be read.
    """
    from vissl_jointssl.atomic_file import write_at_once
    from vissl_jointssl.manifest import read_manifest
    from vissl_jointssl.report.evaluation_page import render_evaluations
    from vissl_jointssl.report.evaluations import read_evaluations

    evaluations, suites = read_evaluations(args.results)
    for path in args.manifest:
        read_manifest(path)  # its fault is the command's, not one line of a page
    page = render_evaluations(evaluations, suites, args.manifest)
    write_at_once(page.encode("utf-8"), args.out)
    sys.stdout.write(f"{args.out}: {len(evaluations)} evaluation{'s' if len(evaluations) != 1 else ''}\n")
    return 0
