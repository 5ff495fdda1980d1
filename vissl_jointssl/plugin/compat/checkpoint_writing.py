"""Writing checkpoints: whole or not at all, hashed, and never without a link to the newest."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from vissl.utils.checkpoint import CheckpointWriter

from vissl_jointssl.checkpoints import point_link, save_checkpoint


def replace_checkpoint_writer() -> None:
    """``CV/generic/util.py:352`` writes in place, and ``vissl/utils/io.py:47`` deletes the link to make it anew.

    Both by design: a kill or a full disk then leaves half a file under a whole one's name, or no link. Called by
    ``vissl/utils/checkpoint.py:125`` and ``:143``, which are what is replaced.
    """
    CheckpointWriter._save = _save
    CheckpointWriter._create_symbolic_link = _create_symbolic_link


def _save(self: CheckpointWriter, name: str, content: dict[str, Any]) -> None:
    """Write one checkpoint or shard.

    Raises:
        CheckpointWriteError: With the cause and what is left, if the disk or the folder does not take it.
    """
    path = Path(self.checkpoint_folder) / name
    save_checkpoint(content, path)
    logging.info(f"Saved checkpoint: {path}")


def _create_symbolic_link(self: CheckpointWriter, checkpoint_name: str) -> None:
    """Point ``checkpoint.torch`` at the checkpoint just written."""
    point_link(self.checkpoint_folder, checkpoint_name)
