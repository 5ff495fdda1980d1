"""`jointssl import FILE --out stage0.torch`."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

logger = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.add_argument(
        "file", type=Path, help="weights of a ResNet-50: .pth, .pt, .torch, .tar or .safetensors, any library's names"
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="checkpoint to write, e.g. stage0.torch"
    )
    parser.add_argument(
        "--prefix",
        help="what stands before conv1.weight, where a file holds several networks, e.g. state_dict.teacher.",
    )
    parser.epilog = "Stage 1 starts from it by config.MODEL.WEIGHTS_INIT.PARAMS_FILE=stage0.torch."


def run(args: argparse.Namespace) -> None:
    """Import and log what happened to every weight.

    Raises:
        CheckpointError: If the file cannot be read or holds no whole ResNet-50.
    """
    # Late, so that building the parser does not build a network.
    from vissl_jointssl.checkpoints.importing import write_imported

    logger.info("%s", write_imported(args.file, args.out, args.prefix).summary())
