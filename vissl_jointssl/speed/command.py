"""`jointssl speed`: the command line of the measures."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from vissl_jointssl.spelling import nearest

MEASURES = ("loader",)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    # No choices=: an unknown name is answered with the nearest known one.
    parser.add_argument("what", help="loader: random crops from our cache, against nibabel and TorchIO")
    parser.add_argument("folder", nargs="?", type=Path, help="scans (.nii.gz); default: CT-like ones are made")
    parser.add_argument("--volumes", type=int, default=4, metavar="N", help="scans; default: %(default)s")
    parser.add_argument("--crops", type=int, default=24, metavar="N", help="crops in all; default: %(default)s")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")


def run(args: argparse.Namespace) -> int:
    """Measure, and print.

    Raises:
        ValueError: If nobody knows the measure, or as in `measure_loader`.
    """
    if args.what not in MEASURES:
        raise ValueError(f"no measure is called {args.what!r}{nearest(args.what, MEASURES)}")
    # Late, so that `--help` does not import torch.
    from vissl_jointssl.speed.loader import measure_loader
    from vissl_jointssl.speed.table import loader_table

    measured = measure_loader(args.folder, args.volumes, args.crops)
    sys.stdout.write((json.dumps(measured, indent=2) if args.json else loader_table(measured)) + "\n")
    return 0
