"""Extract features with VISSL's engine and read them back, for the programs that classify them."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from vissl.config import AttrDict
from vissl.models.model_helpers import get_trunk_output_feature_names
from vissl.utils.checkpoint import get_checkpoint_folder
from vissl.utils.env import set_env_vars
from vissl.utils.extract_features_utils import ExtractedFeaturesLoader
from vissl.utils.logger import setup_logging

from vissl_jointssl.plugin import launch

SPLITS = ("train", "test")


@dataclass(frozen=True)
class Extraction:
    """Where the features of a run are.

    Attributes:
        config: The run's config.
        folder: Folder of the feature files.
        layers: Names of the features.
    """

    config: AttrDict
    folder: Path
    layers: list[str]


@dataclass(frozen=True)
class Features:
    """Features of one split in the order of its samples.

    Attributes:
        values: ``(n, d)``, float32.
        targets: As the data source gave them, ``(n, 1)`` for class ids or ``(n, classes)`` for multi-label ones.
    """

    values: np.ndarray
    targets: np.ndarray


def extract(overrides: list[str], program: str) -> Extraction:
    """Compose a config and extract the features it names, of both splits.

    Feature files of an earlier run in the same folder are removed first: VISSL merges whatever lies there, also what
    another checkpoint or another number of ranks left.

    Args:
        overrides: Hydra's, as for the launcher.
        program: Name of the calling program, for the messages.

    Raises:
        ValueError: If the config is unknown or has a fault, extracts no features, or is for several nodes or SLURM.
    """
    setup_logging(__name__)
    args, config = launch.read_config(overrides)
    if not config.MODEL.FEATURE_EVAL_SETTINGS.EVAL_MODE_ON:
        raise ValueError(
            f"config.MODEL.FEATURE_EVAL_SETTINGS.EVAL_MODE_ON is False; {program} classifies extracted features: take "
            "a config such as jointssl/extract_volumes"
        )
    if config.SLURM.USE_SLURM or config.DISTRIBUTED.NUM_NODES > 1:
        raise ValueError(
            f"{program} reads the features on the machine that extracts them; set config.SLURM.USE_SLURM=False and "
            "config.DISTRIBUTED.NUM_NODES=1, and run it inside a job"
        )
    set_env_vars(local_rank=0, node_id=args.node_id, cfg=config)
    folder = Path(config.EXTRACT_FEATURES.OUTPUT_DIR or get_checkpoint_folder(config))
    layers = get_trunk_output_feature_names(config.MODEL) or ["heads"]
    earlier = [path for layer in layers for split in SPLITS for path in _files(folder, split, layer)]
    for path in earlier:
        path.unlink()
    launch.launch_on_this_node(config, node_id=args.node_id, engine_name="extract_features")
    setup_logging(__name__)  # the engine has closed its handlers
    if earlier:
        logging.info(f"replaced {len(earlier)} feature files of an earlier run in {folder}")
    return Extraction(config, folder, layers)


def read_features(folder: Path, split: str, layer: str) -> Features:
    """Merge what the ranks wrote.

    Args:
        folder: Where the features are.
        split: ``train`` or ``test``.
        layer: Name of the feature.

    Raises:
        ValueError: If there are none.
    """
    merged = ExtractedFeaturesLoader.load_features(str(folder), split, layer, flatten_features=True)
    return Features(merged["features"].astype(np.float32), merged["targets"])


def class_ids(targets: np.ndarray, purpose: str) -> np.ndarray:
    """One class per sample, ``(n,)``, out of targets ``(n, 1)``.

    Args:
        targets: As extracted.
        purpose: Who asks, for the message.

    Raises:
        ValueError: If a sample has several targets, or one below zero.
    """
    if targets.ndim != 2 or targets.shape[1] != 1:
        raise ValueError(f"{purpose} needs one class per sample, targets (n, 1); got targets {targets.shape}")
    if targets.min() < 0:
        raise ValueError(
            f"{purpose} needs classes from 0; {int((targets < 0).sum())} targets are below: label these samples or "
            "leave them out of the split"
        )
    return targets[:, 0].astype(np.int64)


def _files(folder: Path, split: str, layer: str) -> list[Path]:
    kinds = ("features", "targets", "inds")
    return [path for kind in kinds for path in folder.glob(f"rank*_chunk*_{split}_{layer}_{kind}.npy")]
