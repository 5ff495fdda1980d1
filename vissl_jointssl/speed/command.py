"""`jointssl speed`: the command line of the measures."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from vissl_jointssl.speed.measures import MEASURES, Settings, load_measure
from vissl_jointssl.spelling import nearest

ALL = "all"
FIGURE_OF = "scaling"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    # No choices=: an unknown name is answered with the nearest known one.
    known = "; ".join(f"{name}: {words}" for name, words in MEASURES.items())
    parser.add_argument("what", help=f"{known}; {ALL}: each of them, and one line of their ratios")
    parser.add_argument("folder", nargs="?", type=Path, help="scans (.nii.gz) for loader; default: CT-like ones")
    parser.add_argument(
        "--volumes", type=int, default=Settings.volumes, metavar="N", help="loader: scans (%(default)s)"
    )
    parser.add_argument("--crops", type=int, default=Settings.crops, metavar="N", help="loader: crops (%(default)s)")
    parser.add_argument(
        "--repetitions", type=int, default=Settings.repetitions, metavar="N", help="turns of each (%(default)s)"
    )
    parser.add_argument(
        "--device", choices=("auto", "cpu", "gpu"), default="auto", help="default: a GPU if there is one"
    )
    parser.add_argument(
        "--figure", type=Path, metavar="FILE", help="scaling, all: draw scaling, too (.svg, .png or .pdf)"
    )
    parser.add_argument("--json", action="store_true", help="JSON instead of tables: an object, for all one line")


def run(args: argparse.Namespace) -> int:
    """Measure, and print.

    Raises:
        ValueError: If nobody knows the measure, a number is not positive, the device is absent, or as the measure says.
    """
    if args.what not in (*MEASURES, ALL):
        raise ValueError(f"no measure is called {args.what!r}{nearest(args.what, (*MEASURES, ALL))}")
    if args.repetitions < 1:
        raise ValueError(f"repetitions is {args.repetitions}; expected at least 1")
    if args.figure is not None and args.what not in (FIGURE_OF, ALL):
        raise ValueError(f"only {FIGURE_OF} has a figure, {args.what} has none; leave --figure out")
    settings = Settings(args.repetitions, _device(args.device), args.folder, args.volumes, args.crops)
    if args.what != ALL:
        measured, table, _ = _one(args.what, settings, args.figure)
        _print(json.dumps(measured, indent=2) if args.json else table)
        return 0
    ratios: dict[str, float] = {}
    machine: dict[str, Any] = {}
    for name in MEASURES:
        measured, table, of_one = _one(name, settings, args.figure)
        machine, ratios = measured["machine"], ratios | of_one
        if not args.json:
            _print(f"{name}\n{table}\n")
    _print(json.dumps({"machine": machine, "ratios": ratios}))
    return 0


def _one(name: str, settings: Settings, figure: Path | None) -> tuple[dict[str, Any], str, dict[str, float]]:
    measure = load_measure(name)
    measured = measure.measure(settings)
    if figure is not None and name == FIGURE_OF:
        from vissl_jointssl.speed.scaling_figure import draw_scaling

        draw_scaling(measured, figure)
    return measured, measure.table(measured), measure.ratios(measured)


def _device(asked: str) -> str:
    """Late import, so that `--help` does not import torch."""
    import torch

    found = torch.cuda.is_available()
    if asked == "gpu" and not found:
        raise ValueError("device is gpu, but PyTorch sees none; give --device cpu or check the driver")
    return "gpu" if asked != "cpu" and found else "cpu"


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
