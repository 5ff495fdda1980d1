"""Data paths that are given without label paths."""

from __future__ import annotations

from vissl.config import AttrDict
from vissl.data import dataset_catalog
from vissl.data.dataset_catalog import VisslDatasetCatalog

from vissl_jointssl.plugin.compat.patching import replace_everywhere

_vissl_get_data_files = dataset_catalog.get_data_files


def replace_get_data_files() -> None:
    """``vissl/data/dataset_catalog.py:293`` looks labels up in the catalogue although paths were given (by design).

    The wheel has no catalogue, so ``DATA_PATHS`` alone, all that pre-training needs, ended in "dataset not registered".
    """
    replace_everywhere(_vissl_get_data_files, get_data_files)


def get_data_files(split: str, dataset_config: AttrDict) -> list[list]:
    """Find the paths of images and labels of one split.

    Args:
        split: ``TRAIN`` or ``TEST``.
        dataset_config: ``config.DATA``.

    Returns:
        The data paths and the label paths; no label paths where data paths were given without them.

    Raises:
        ValueError: If a label file is needed and neither the config nor the catalogue names it, or a data set has
            neither a path nor a place in the catalogue.
    """
    config = dataset_config[split]
    known = VisslDatasetCatalog.list()
    unknown = [name for name in config.DATASET_NAMES if name not in known]
    synthetic = all(source == "synthetic" for source in config.DATA_SOURCES)
    if not unknown or config.LABEL_PATHS or synthetic:
        return _vissl_get_data_files(split, dataset_config)
    if not config.DATA_PATHS:
        raise ValueError(
            f"config.DATA.{split}.DATASET_NAMES={unknown} has no path: set config.DATA.{split}.DATA_PATHS, or name a "
            f"data set of the catalogue ({', '.join(known) or 'which is empty: set VISSL_DATASET_CATALOG_PATH'})"
        )
    if "disk_filelist" in config.LABEL_SOURCES:
        raise ValueError(
            f"config.DATA.{split}.LABEL_SOURCES={list(config.LABEL_SOURCES)} reads labels from files, but "
            f"config.DATA.{split}.LABEL_PATHS is empty: give one label file per data source"
        )
    # An empty path is VISSL's own way to say that a source has no labels.
    without_labels = AttrDict({**config, "LABEL_PATHS": [""] * len(config.DATA_SOURCES)})
    return _vissl_get_data_files(split, AttrDict({**dataset_config, split: without_labels}))
