"""Values of a config, and of the environment, that would make VISSL unpickle a file, or ask a server for one."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

from vissl.config import AttrDict

UNSAFE_SWITCH = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"


def unsafe_values(cfg: AttrDict) -> list[str]:
    """Every such value, in words, with what to do instead."""
    faults = []
    # Obeyed by torch/serialization.py wherever a call names no `weights_only`, such as CV/generic/util.py:280.
    if os.environ.get(UNSAFE_SWITCH, "0") != "0":
        faults.append(f"{UNSAFE_SWITCH} is set, with which a checkpoint to resume from can run code; unset it")
    for split in ("TRAIN", "TEST"):
        sources = cfg.DATA[split].LABEL_SOURCES
        if "disk_filelist" in sources:  # vissl/data/ssl_dataset.py:176 allows pickled objects
            faults.append(
                f"config.DATA.{split}.LABEL_SOURCES is {list(sources)}; VISSL unpickles label files, which can run "
                "code: give labels in the manifest, and LABEL_SOURCES=[torchvision_dataset]"
            )
    for path, text in _texts(cfg, "config"):
        if text.endswith((".pkl", ".pickle")):  # vissl/utils/io.py:105
            faults.append(
                f"{path} is {text}; VISSL unpickles it, which can run code: save the list as .npy, or prepare the "
                "images into a manifest"
            )
        elif "://" in text:  # vissl/utils/hydra_config.py:641 and iopath fetch it
            faults.append(
                f"{path} is {text}; nothing is fetched from a network here: give a path on this machine (download a "
                "file first, and compare its checksum)"
            )
    return faults


def _texts(value: Any, path: str) -> Iterator[tuple[str, str]]:
    """Every string of a config with its place."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, Mapping | list | tuple):
        for key, inner in value.items() if isinstance(value, Mapping) else enumerate(value):
            yield from _texts(inner, f"{path}.{key}")
