"""The `jointssl` command. Each verb imports what it needs when it runs, so that `--help` answers at once."""

from __future__ import annotations

import argparse
import importlib
import logging
import sys

from vissl_jointssl import __version__

# verb: (module with `add_arguments(parser)` and `run(args)`, help)
VERBS = {
    "prepare": (
        "vissl_jointssl.preparation.command",
        "turn a data set, or a folder of scans and images, into a cache and manifest.csv",
    ),
    "doctor": (
        "vissl_jointssl.preparation.doctor.command",
        "say what is wrong with scans, raw or prepared, and whether training may start",
    ),
    "train": ("vissl_jointssl.training.command", "run the stages of a recipe, skipping what is finished"),
    "replay": (
        "vissl_jointssl.plugin.replay_command",
        "take the step again at which a training stopped, and find where a number was not finite first",
    ),
    "evaluate": (
        "vissl_jointssl.evaluation.command",
        "train and test a task from several starts, side by side, into results.json",
    ),
    "report": ("vissl_jointssl.report.evaluations_command", "collect results.json files into one page with figures"),
    "parameters": ("vissl_jointssl.models.command", "count the parameters of each part of a preset"),
    "export": ("vissl_jointssl.export.command", "write a checkpoint's weights for another library, verified"),
    "import": (
        "vissl_jointssl.checkpoints.import_command",
        "make any library's ResNet-50 weights a checkpoint that stage 1 starts from",
    ),
    "speed": ("vissl_jointssl.speed.command", "measure how far training is from what this machine can do"),
}


def main(argv: list[str] | None = None) -> int:
    """Run one verb.

    Args:
        argv: The command line, `sys.argv[1:]` by default.

    Returns:
        Exit code: 0 for success, 1 for an error that has been explained in one line, 130 after Ctrl-C.
    """
    arguments = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(
        prog="jointssl",
        description="Joint 2D and 3D self-supervised pre-training for medical images.",
        epilog="jointssl VERB --help explains a verb.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    wanted = next((word for word in arguments if word in VERBS), None)
    for verb, (module, explanation) in VERBS.items():
        one = verbs.add_parser(verb, help=explanation, description=explanation)
        if verb == wanted:
            command = importlib.import_module(module)
            command.add_arguments(one)
            one.set_defaults(run=command.run)
    args = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        return int(args.run(args) or 0)
    except KeyboardInterrupt:
        print("jointssl: interrupted; the same command goes on where it stopped", file=sys.stderr)
        return 130
    except (ValueError, OSError) as error:
        # Every error of ours for bad input is a ValueError whose message names the thing and the next step.
        print(f"jointssl {args.verb}: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
