"""The export targets by the name used on the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from vissl_jointssl.export.account import ExportAccount, ExportError
from vissl_jointssl.export.torchvision import export_torchvision
from vissl_jointssl.spelling import nearest

TARGETS: dict[str, Callable[[Path, Path], ExportAccount]] = {
    "torchvision": export_torchvision,
}


def find_target(name: str) -> Callable[[Path, Path], ExportAccount]:
    """The export function of a target.

    Raises:
        ExportError: If there is no such target; the message names the nearest one.
    """
    if name not in TARGETS:
        raise ExportError(f"unknown export target {name!r}{nearest(name, TARGETS)}")
    return TARGETS[name]
