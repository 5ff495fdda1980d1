"""How a replacement reaches every place that holds the original, and how it says so."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import Any

_PATCHED_PACKAGES = ("vissl", "classy_vision", "tools", "extra_scripts")


def replace_everywhere(original: Callable[..., Any], replacement: Callable[..., Any]) -> int:
    """Point every loaded VISSL module that imported ``original`` by name at ``replacement``.

    ``from x import f`` copies the reference, so replacing ``x.f`` alone would miss the modules that were already
    imported; those imported later find the replacement in ``x``.

    Args:
        original: The function as VISSL defines it.
        replacement: What is called from now on.

    Returns:
        How many module attributes were replaced.
    """
    replaced = 0
    for name, module in list(sys.modules.items()):
        if module is None or name.partition(".")[0] not in _PATCHED_PACKAGES:
            continue
        for attribute, value in list(vars(module).items()):
            if value is original:
                setattr(module, attribute, replacement)
                replaced += 1
    return replaced


def announce(message: str) -> None:
    """Log one line on rank 0, through whatever logger VISSL has made the root (``vissl/utils/logger.py:62``)."""
    from vissl.utils.env import get_machine_local_and_dist_rank

    _, distributed_rank = get_machine_local_and_dist_rank()
    if distributed_rank == 0:
        logging.info(message)
