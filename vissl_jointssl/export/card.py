"""The description that travels with exported weights: what they are, what they expect, where they come from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

import vissl_jointssl
from vissl_jointssl.atomic_file import write_at_once
from vissl_jointssl.checkpoints import CheckpointError, sha256
from vissl_jointssl.export.account import ExportAccount
from vissl_jointssl.export.intensity import intensity_recipe
from vissl_jointssl.export.source import Source
from vissl_jointssl.export.training_config import Normalisation

SLICES = "(B, C, H, W): C in RGB order or one grey channel repeated, H and W as in the prepared slice"
VOLUMES = (
    "(B, F, C, H, W): F slices in order as in the prepared volume, C one grey channel or three, padding at the end "
    "NaN or named by valid (B, F)"
)


def card_path(out: Path) -> Path:
    """Where the card of a weights file lies: ``f_intra.pth`` -> ``f_intra.pth.json``."""
    return out.with_name(f"{out.name}.json")


def describe(
    account: ExportAccount,
    source: Source,
    known: Normalisation,
    *,
    architecture: str,
    axis_order: str,
    parity: Mapping[str, Any],
    intensity: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The card of an export, in plain types; it may travel inside the file, so it does not hold that file's hash.

    Args:
        account: What became of every weight.
        source: Where they come from.
        known: The normalisation of the training images.
        architecture: Name of the model in the target library.
        axis_order: Of the model's input.
        parity: Input and result of the parity check.
        intensity: How raw intensities became the network's input range; None looks for what preparation left.
    """
    checkpoint, config = source.checkpoint, source.config
    record = checkpoint.record
    fingerprint = record.manifest if record else None
    return {
        "target": account.target,
        "architecture": architecture,
        "load_with": account.load_with,
        "sha256": None,
        "stage": record.stage if record else None,
        "flavour": record.flavour if record else None,
        "input": {
            "axis_order": axis_order,
            "channels": 3,
            "range": [0.0, 1.0],
            "mean": known.mean and list(known.mean),
            "std": known.std and list(known.std),
            "normalisation_known_from": known.known_from,
            "intensity": dict(intensity) if intensity else intensity_recipe(config.manifests, fingerprint),
            "training_transforms": list(config.transforms),
        },
        "source": {
            "checkpoint": checkpoint.path.resolve().name,
            "sha256": sha256(checkpoint.path),
            "iteration": checkpoint.iteration,
            "final": checkpoint.final,
            "parent_sha256": record.parent if record else None,
            "manifest_fingerprint": fingerprint,
            "trained_with": record.version if record else None,
        },
        "weights": {
            "matched": len(account.matched),
            "renamed": len(account.renamed),
            "dropped": list(account.dropped),
            "missing": list(account.missing),
        },
        "parity": {**parity, "max_abs_difference": account.max_abs_difference},
        "exported_with": {"vissl_jointssl": vissl_jointssl.__version__, "torch": str(torch.__version__)},
        "unknown": "null means that the checkpoint and the configuration beside it do not say",
    }


def write_card(out: Path, card: Mapping[str, Any]) -> Path:
    """Write the card of ``out`` beside it, with the hash of ``out``, which must exist; returns the card's path."""
    path = card_path(out)
    write_at_once((json.dumps({**card, "sha256": sha256(out)}, indent=2) + "\n").encode(), path)
    return path


def read_card(out: Path, content: object = None) -> dict[str, Any] | None:
    """The card of a weights file: the one beside it, else the one inside it, else None.

    Args:
        out: The weights file.
        content: What ``torch.load`` gave of it, where that was read already.

    Raises:
        CheckpointError: If the card beside it is of another file: the weights were changed or mixed up.
    """
    try:
        card = json.loads(card_path(out).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return _card_inside(out, content)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(
            f"{card_path(out)}: the card cannot be read ({error}); export again, or delete it to load without"
        ) from error
    if not isinstance(card, dict) or "sha256" not in card:
        return None  # a JSON file of somebody else
    if card["sha256"] != sha256(out):
        raise CheckpointError(
            f"{out}: is not the file that {card_path(out).name} describes (its SHA-256 differs): it was changed or "
            "damaged since; copy both again, export again, or delete the card to load without"
        )
    return card


def _card_inside(out: Path, content: object) -> dict[str, Any] | None:
    if out.suffix == ".safetensors":
        with out.open("rb") as stream:
            # The format's own header: its length in 8 bytes, then JSON.
            header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
        card = json.loads(header.get("__metadata__", {}).get("card", "null"))
    else:
        card = content.get("card") if isinstance(content, Mapping) else None
    return card if isinstance(card, dict) else None
