"""The description that travels with exported weights: what they are, what they expect, where they come from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

import vissl_jointssl
from vissl_jointssl.atomic_file import write_at_once
from vissl_jointssl.checkpoints import Checkpoint, sha256
from vissl_jointssl.export.training_config import TrainingConfig


def card_path(out: Path) -> Path:
    """Where the card of a weights file lies: ``f_intra.pth`` -> ``f_intra.pth.json``."""
    return out.with_name(f"{out.name}.json")


def write_card(
    out: Path,
    checkpoint: Checkpoint,
    config: TrainingConfig,
    *,
    target: str,
    architecture: str,
    load_with: str,
    parity: Mapping[str, Any],
    intensity: Mapping[str, Any] | None,
) -> Path:
    """Write the card of ``out`` beside it.

    Args:
        out: The exported weights; they must exist, because the card holds their hash.
        checkpoint: Where they come from.
        config: What is known about that training run.
        target: Library exported to.
        architecture: Name of the model in that library.
        load_with: Python lines that load the weights.
        parity: Input and result of the parity check.
        intensity: How raw intensities became the network's input range, where known.

    Returns:
        The card's path.
    """
    record = checkpoint.record
    card = {
        "target": target,
        "architecture": architecture,
        "load_with": load_with,
        "sha256": sha256(out),
        "stage": record.stage if record else None,
        "flavour": record.flavour if record else None,
        "input": {
            "axis_order": "(B, C, H, W): C in RGB order or one grey channel repeated, H and W as in the prepared slice",
            "channels": 3,
            "range": [0.0, 1.0],
            "mean": config.mean,
            "std": config.std,
            "intensity": intensity,
            "training_transforms": list(config.transforms),
        },
        "source": {
            "checkpoint": checkpoint.path.resolve().name,
            "sha256": sha256(checkpoint.path),
            "iteration": checkpoint.iteration,
            "final": checkpoint.final,
            "parent_sha256": record.parent if record else None,
            "manifest_fingerprint": record.manifest if record else None,
            "trained_with": record.version if record else None,
        },
        "parity": dict(parity),
        "exported_with": {"vissl_jointssl": vissl_jointssl.__version__, "torch": str(torch.__version__)},
        "unknown": "null means that the checkpoint and the configuration beside it do not say",
    }
    path = card_path(out)
    write_at_once((json.dumps(card, indent=2) + "\n").encode(), path)
    return path
