"""`jointssl prepare`: a folder of scans to a prepared one."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from vissl_jointssl.preparation.errors import PreparationError
from vissl_jointssl.preparation.orientation import SLICE_AXES
from vissl_jointssl.preparation.pipeline import prepare_folder

_log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `jointssl prepare`; each is explained in `pipeline.prepare_folder`."""
    parser.add_argument("folder", type=Path, help="scans: NIfTI, DICOM folders, MHA, NRRD, PNG, JPEG, at any depth")
    parser.add_argument("--out", type=Path, required=True, help="where the arrays and manifest.csv go")
    parser.add_argument("--modality", type=str.upper, choices=("CT", "MR"), help="default: told from each scan")
    parser.add_argument(
        "--spacing", type=float, metavar="MM", help="voxel size to resample to; default: the scan's own"
    )
    parser.add_argument("--slice-axis", choices=SLICE_AXES, default="axial", help="default: %(default)s")
    parser.add_argument("--validation-share", type=float, default=0.0, help="of patients; default: %(default)s")
    parser.add_argument("--test-share", type=float, default=0.0, help="of patients; default: %(default)s")
    parser.add_argument("--keep-going", action="store_true", help="leave unreadable files out instead of stopping")


def run(args: argparse.Namespace) -> int:
    """Prepare the folder with a progress bar; returns the exit status, 0 or 1."""
    from tqdm import tqdm

    with tqdm(unit="scan", desc="prepare") as bar:

        def show(done: int, total: int, path: str) -> None:
            bar.total = total
            bar.update(done - bar.n)
            bar.set_postfix_str(path[-40:])

        try:
            manifest = prepare_folder(
                args.folder,
                args.out,
                modality=args.modality,
                spacing=args.spacing,
                slice_axis=args.slice_axis,
                validation_share=args.validation_share,
                test_share=args.test_share,
                keep_going=args.keep_going,
                progress=show,
            )
        except PreparationError as error:
            bar.close()
            _log.error("%s", error)
            return 1
    _log.info("%d rows in %s", len(manifest), manifest.path)
    return 0
