"""`jointssl prepare`: a data set, a folder of scans, a table of scans or a MedMNIST file to a prepared folder."""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from dataclasses import replace
from pathlib import Path

from vissl_jointssl.preparation.cache.report import REPORT_FILE
from vissl_jointssl.preparation.errors import PreparationError, printable
from vissl_jointssl.preparation.pipeline import TIMEOUT, prepare
from vissl_jointssl.preparation.processing.orientation import SLICE_AXES
from vissl_jointssl.preparation.recipe import FOURTH_AXES, IMAGE_FORMS, STORED_TYPES, Options, Recipe
from vissl_jointssl.preparation.sources.folder_recipe import check_patients, folder_recipe

_OF_OPTIONS = ("slice_axis", "stored_type", "crop_foreground", "fourth_axis", "image_size", "image_form")
_OF_RECIPE = ("validation_share", "test_share", "seed")
_log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `jointssl prepare`; what is not given stays as the data set's recipe has it."""
    parser.add_argument(
        "data",
        nargs="?",
        help="a data set's name (see --list), a folder of scans and images at any depth, a .csv, or a MedMNIST .npz",
    )
    parser.add_argument("root", nargs="?", type=Path, help="where the data set of that name lies")
    parser.add_argument("--out", type=Path, help="where the arrays and manifest.csv go")
    parser.add_argument("--list", action="store_true", help="show the data sets and end")
    parser.add_argument("--modality", type=str.upper, help="of the volumes, such as CT; default: told from each scan")
    parser.add_argument(
        "--spacing",
        type=float,
        nargs="+",
        metavar="MM",
        help="voxel size to resample to, one number or three for F H W; default: the scan's own",
    )
    parser.add_argument("--slice-axis", choices=SLICE_AXES, help="default: axial")
    parser.add_argument("--stored-type", choices=STORED_TYPES, help="default: uint16")
    parser.add_argument("--ct-window", type=float, nargs=2, metavar=("LOW", "HIGH"), help="HU; default: -1000 1000")
    parser.add_argument(
        "--percentiles", type=float, nargs=2, metavar=("LOW", "HIGH"), help="of all that is not CT; default: 0.5 99.5"
    )
    parser.add_argument("--crop-foreground", action="store_true", default=None, help="cut the air around the body away")
    parser.add_argument("--fourth-axis", choices=FOURTH_AXES, help="what a 4D file becomes; default: its first volume")
    parser.add_argument("--image-size", type=int, metavar="PIXELS", help="longest side; larger images are shrunk")
    parser.add_argument("--image-form", choices=IMAGE_FORMS, help="original keeps 8-bit PNG and JPEG; default: decoded")
    parser.add_argument("--validation-share", type=float, help="of patients; default: 0")
    parser.add_argument("--test-share", type=float, help="of patients; default: 0")
    parser.add_argument("--seed", type=int, help="of the draw of patients; default: 0")
    parser.add_argument("--jobs", type=int, help="worker processes; default: one for each core")
    parser.add_argument(
        "--timeout", type=float, default=TIMEOUT, metavar="SECONDS", help="for one source; default: %(default)g"
    )
    parser.add_argument(
        "--boxes", type=Path, metavar="FILE", help="of images: COCO .json, VOC .xml or a folder of these"
    )
    parser.add_argument(
        "--first-pixel", type=int, choices=(0, 1), default=1, help="number of the first pixel in VOC files"
    )
    parser.add_argument("--keep-going", action="store_true", help="leave unreadable files out instead of stopping")


def run(args: argparse.Namespace) -> int:
    """Prepare with a progress bar; returns the exit status, 0 or 1."""
    if args.list:
        sys.stdout.write(_table())
        return 0
    try:
        if args.data is None or args.out is None:
            raise PreparationError("say what to prepare and where to: `jointssl prepare DATA --out DIR`, or use --list")
        recipe = _with_options(_with_boxes(_recipe(args), args), args)
        _prepare_with_bar(recipe, args)
    except PreparationError as error:
        _log.error("%s", error)
        return 1
    return 0


def _recipe(args: argparse.Namespace) -> Recipe:
    from vissl_jointssl.preparation.datasets import all_data_sets, data_set_recipe

    path, known = Path(args.data), args.data in all_data_sets()
    if not path.exists() or (known and args.root is not None):
        if not known and (args.root is None and path.name != args.data):
            raise PreparationError(f"{printable(path)}: does not exist. Next: check the path")
        return data_set_recipe(args.data, args.root)
    if args.root is not None:
        raise PreparationError(
            f"{args.data!r} is no data set, but a file or folder here, and then {printable(args.root)} is one path too "
            "many. Next: leave it out, or see --list"
        )
    if known:
        _log.info("%s is a folder here and is taken; for the data set of this name give its folder as well", args.data)
    if path.is_dir():
        recipe = folder_recipe(path, args.out, args.modality)
        check_patients(_with_options(recipe, args))
        return recipe
    if path.suffix.lower() == ".csv":
        from vissl_jointssl.preparation.sources.csv_recipe import csv_recipe

        return csv_recipe(path)
    if path.suffix.lower() == ".npz":
        from vissl_jointssl.preparation.sources.medmnist_recipe import medmnist_recipe

        return medmnist_recipe(path)
    raise PreparationError(
        f"{printable(path)}: is neither a folder, nor a .csv, nor a MedMNIST .npz. Next: give the folder that the scan "
        "lies in"
    )


def _with_boxes(recipe: Recipe, args: argparse.Namespace) -> Recipe:
    if args.boxes is None:
        return recipe
    from vissl_jointssl.preparation.sources.annotated_images import with_boxes
    from vissl_jointssl.preparation.sources.box_annotations import read_box_annotations

    return with_boxes(recipe, read_box_annotations(args.boxes, args.first_pixel), args.boxes)


def _with_options(recipe: Recipe, args: argparse.Namespace) -> Recipe:
    """The recipe with what the command line says instead."""
    given = {name: getattr(args, name) for name in _OF_OPTIONS if getattr(args, name) is not None}
    given |= {name: tuple(getattr(args, name)) for name in ("ct_window", "percentiles") if getattr(args, name)}
    if args.spacing is not None:
        if len(args.spacing) not in (1, 3):
            raise PreparationError(f"--spacing has {len(args.spacing)} numbers, expected one, or three for F H W")
        given["spacing"] = tuple(args.spacing) * (3 // len(args.spacing))
    shares = {name: getattr(args, name) for name in _OF_RECIPE if getattr(args, name) is not None}
    sources = recipe.sources
    if args.modality is not None:
        sources = tuple(
            replace(source, modality=args.modality) if source.kind == "volume" else source for source in sources
        )
    options: Options = replace(recipe.options, **given)
    return replace(recipe, options=options, sources=sources, **shares)


def _prepare_with_bar(recipe: Recipe, args: argparse.Namespace) -> None:
    from tqdm import tqdm
    from tqdm.contrib.logging import logging_redirect_tqdm

    began = time.monotonic()
    with tqdm(unit="scan", desc="prepare", dynamic_ncols=True) as bar, logging_redirect_tqdm():

        def show(done: int, total: int, path: str) -> None:
            bar.total = total
            bar.set_postfix_str(printable(path)[-40:], refresh=False)
            bar.update(done - bar.n)

        manifest = prepare(recipe, args.out, show, keep_going=args.keep_going, jobs=args.jobs, timeout=args.timeout)
    counts = json.loads((manifest.root / REPORT_FILE).read_text(encoding="utf-8"))["counts"]
    size = sum((manifest.root / file).stat().st_size for entry in manifest.entries for file in entry.files)
    _log.info(
        "%d rows from %d of %d sources in %.0f s, %.2f GB: %s",
        len(manifest),
        counts["sources"] - counts["left_out"],
        counts["sources"],
        time.monotonic() - began,
        size / 1e9,
        printable(manifest.path),
    )


def _table() -> str:
    """Every data set, a line each."""
    from vissl_jointssl.preparation.datasets import all_data_sets

    head = ("name", "contents", "modality", "labels", "home")
    rows = [head, *(tuple(getattr(one, name) for name in head) for one in all_data_sets().values())]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head) - 1)]
    widths.append(0)
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "".join(f"{line}\n" for line in lines)
