"""Taking out of a prepared folder what nobody needs any more, and nothing that we did not write."""

from __future__ import annotations

import re
from pathlib import Path

ARRAYS = ("volumes", "images")  # folders of a prepared one
RECORDS = ".records"
_OURS = re.compile(r"[\w.-]+-[0-9a-f]{8}(-[a-z]\d+)*(-labels|-boxes|-grid)?\.(npy|png|jpe?g|json)")
_LEFT_OVER = re.compile(r"\.part-.*\.part")  # of `atomic_file`, by a process that was killed


def remove_left_overs(folder: Path) -> None:
    """Delete what processes that were killed had begun to write; only while no other run is at work there."""
    for inner in (folder, *(folder / name for name in (*ARRAYS, RECORDS))):
        for path in inner.glob(".part-*"):
            if _LEFT_OVER.fullmatch(path.name):
                path.unlink(missing_ok=True)


def recorded_ids(folder: Path) -> set[str]:
    """Ids of the sources that earlier runs finished."""
    return {path.stem for path in (folder / RECORDS).glob("[!.]*.json")}


def keep_only(folder: Path, files: set[str], ids: set[str]) -> int:
    """Delete arrays that carry a name as we give it and are not listed, and records of other sources.

    Args:
        folder: The prepared one.
        files: What stays, relative to it.
        ids: Of the sources whose records stay.

    Returns:
        How many files of arrays, label maps, boxes and grids went.
    """
    gone = 0
    for name in ARRAYS:
        for path in (folder / name).glob("*"):
            if f"{name}/{path.name}" not in files and _OURS.fullmatch(path.name):
                path.unlink(missing_ok=True)
                gone += 1
    for id in recorded_ids(folder) - ids:
        (folder / RECORDS / f"{id}.json").unlink(missing_ok=True)
    return gone
