"""Every name VISSL learns from us, each with the VISSL line that makes it necessary.

VISSL has no entry points and no setting for user code, so this runs whenever `vissl_jointssl.plugin` is imported:
in the launcher, in spawned ranks and, through the classes they unpickle, in loader workers.
"""

from __future__ import annotations

import importlib

# Modules whose own decorators register the trunk, the head, the losses, the transforms and the training step.
DECORATED = (
    "accumulated_train_step",
    "inter_deepclusterv2_loss",
    "inter_swav_loss",
    "joint_trunk",
    "masked_decoder_head",
    "masked_embedding_loss",
    "volume_cnn_trunk",
    "volume_views",
)


def register() -> None:
    """Add our parts to VISSL's registries; a second call changes nothing."""
    for module in DECORATED:
        importlib.import_module(f"vissl_jointssl.plugin.{module}")
    _register_data_sources()
    _register_multi_view_transform()
    _register_config_search_path()


def _register_data_sources() -> None:
    # vissl/data/__init__.py:40: a plain dict without a decorator.
    from vissl.data import DATASET_SOURCE_MAP

    from vissl_jointssl.plugin.slice_dataset import SliceDataset
    from vissl_jointssl.plugin.volume_dataset import VolumeDataset

    DATASET_SOURCE_MAP["volume_dataset"] = VolumeDataset
    DATASET_SOURCE_MAP["slice_dataset"] = SliceDataset


def _register_multi_view_transform() -> None:
    # vissl/data/ssl_transforms/ssl_transforms_wrapper.py:22: a transform not on this list yields nested views.
    from vissl.data.ssl_transforms import ssl_transforms_wrapper

    if "volume_views" not in ssl_transforms_wrapper._TRANSFORMS_WITH_COPIES:
        ssl_transforms_wrapper._TRANSFORMS_WITH_COPIES.append("volume_views")


def _register_config_search_path() -> None:
    from vissl_jointssl.plugin.search_path import register_search_path

    register_search_path()
