"""Writing weights so that a file is either whole or as it was before."""

from __future__ import annotations

from pathlib import Path

import torch

from vissl_jointssl.atomic_file import replaced_at_once


def save_atomically(obj: object, path: Path | str) -> None:
    """``torch.save`` that leaves either the whole new file or the old one, also when killed or out of disk."""
    with replaced_at_once(path) as stream:
        torch.save(obj, stream)
