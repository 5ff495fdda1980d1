"""Rows in quarantine that were prepared anew, or that are gone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vissl_jointssl.manifest import Entry, read_quarantine, write_quarantine


def release_changed(folder: Path, before: Sequence[Entry], after: Sequence[Entry]) -> list[str]:
    """Take rows off the list whose array is another one by now: what was said about the old one says nothing of it.

    Args:
        folder: The prepared one.
        before: Rows of the last manifest, those in quarantine too.
        after: Rows of the new manifest.

    Returns:
        The ids that were taken off.
    """
    listed = read_quarantine(folder)
    old = {entry.id: (entry.sha256, entry.files) for entry in before}
    new = {entry.id: (entry.sha256, entry.files) for entry in after}
    released = [id for id in listed if id not in new or (id in old and new[id] != old[id])]
    if released:
        write_quarantine(folder, {id: why for id, why in listed.items() if id not in released})
    return released
