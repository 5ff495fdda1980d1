"""``jointssl export CHECKPOINT --to TARGET --out FILE``."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from vissl_jointssl.export.registry import TARGETS, find_target

logger = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.add_argument(
        "checkpoint", type=Path, help="a training checkpoint (.torch) of any stage, or the folder of a run"
    )
    # No choices=: an unknown name is answered with the nearest known one.
    parser.add_argument(
        "--to",
        default="torchvision",
        metavar="TARGET",
        help=f"where the weights go: {', '.join(TARGETS)} (f_intra and f_inter, for load_pretrained)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="FILE",
        help="weights file to write, e.g. f_intra.pth; its card is written beside it as FILE.json",
    )
    parser.epilog = "docs/export.md shows how each target loads its file."


def run(args: argparse.Namespace) -> None:
    """Export and log what happened to every weight.

    Raises:
        CheckpointError: If the checkpoint cannot be read.
        ExportError: If the target is unknown or the checkpoint does not fit it.
    """
    logger.info("%s", find_target(args.to)(args.checkpoint, args.out).summary())
