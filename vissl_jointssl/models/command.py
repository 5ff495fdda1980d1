"""`jointssl parameters`: the command line of `parameter_counts`."""

from __future__ import annotations

import argparse
import json
import sys


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    # No choices=: an unknown name is answered with the nearest known one.
    parser.add_argument("--preset", default="paper", help="paper (default) or released, the authors' code")
    parser.add_argument("--attention-axis", metavar="AXIS", help="slice, embedding or none, in place of the preset's")
    parser.add_argument("--levels", nargs="+", metavar="LEVEL", help="res1 to res5, in place of the preset's")
    parser.add_argument("--embedding-width", type=int, default=640, metavar="D", help="default: %(default)s")
    parser.add_argument("--prototypes", type=int, default=3000, metavar="K", help="default: %(default)s")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")


def run(args: argparse.Namespace) -> int:
    """Count, and print.

    Raises:
        ValueError: If the preset, the axis or a level is unknown.
    """
    # Late, so that `--help` does not import torch.
    from vissl_jointssl.models.attention_axis import PRESETS
    from vissl_jointssl.models.parameter_counts import count_parameters
    from vissl_jointssl.spelling import nearest

    if args.preset not in PRESETS:
        raise ValueError(f"unknown preset {args.preset!r}{nearest(args.preset, PRESETS)}")
    preset = PRESETS[args.preset]
    counts = count_parameters(
        levels=args.levels or preset.levels,
        attention_axis=args.attention_axis or preset.attention_axis,
        embedding_width=args.embedding_width,
        prototypes=args.prototypes,
    )
    if args.json:
        parts = {"f_intra": counts.f_intra, "f_inter": counts.f_inter, "total": counts.total}
        lines = [json.dumps({**parts, "prototypes": counts.prototypes, "decoder": counts.decoder})]
    else:
        rows = {
            "f_intra (ResNet-50 and the map E -> D)": counts.f_intra,
            "f_inter": counts.f_inter,
            "total": counts.total,
            "beside it, stage 2: f_decode": counts.decoder,
            "beside it, stage 3: prototypes": counts.prototypes,
        }
        width = max(map(len, rows))
        lines = [f"{name:{width}}  {count:>12,}" for name, count in rows.items()]
    sys.stdout.write("\n".join(lines) + "\n")
    return 0
