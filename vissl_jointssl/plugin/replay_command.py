"""`jointssl replay capture_rank0.pt`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from vissl_jointssl.plugin.capture import read_capture
from vissl_jointssl.plugin.replay import replay


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.add_argument("capture", type=Path, help="capture_rank*.pt, which a run left that stopped at NaN or infinity")
    parser.epilog = "Exit code 0 if the fault is found again, 1 if not. Needs no GPU and no data."


def run(args: argparse.Namespace) -> int:
    """Print module by module where the numbers are, the first place where they are not finite, and the samples.

    Raises:
        CaptureError: If the capture cannot be replayed.
    """
    capture = read_capture(args.capture)
    sys.stdout.write(f"{capture.said}\n")
    found = replay(capture, lambda line: sys.stdout.write(f"  {line}\n"))
    if found is None:
        ranks = ", ".join(map(str, capture.faulty_ranks))
        sys.stdout.write(
            f"every number is finite here: this is rank {capture.rank}'s batch, and the fault was first on rank "
            f"{ranks}; replay that rank's capture. If this is it, the fault needs the other ranks' batches or the GPU\n"
        )
        return 1
    samples = ", ".join(capture.samples) or "those of the whole batch"
    sys.stdout.write(f"not finite first: {found}\nsamples: {samples}\n")
    return 0
