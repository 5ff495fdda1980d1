"""What is asked of the folder that is prepared into, before anything is written."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from vissl_jointssl.preparation.cache.sweeping import ARRAYS, recorded_ids
from vissl_jointssl.preparation.errors import PreparationError, printable
from vissl_jointssl.preparation.recipe import Recipe, Source


def check_place(folder: Path, root: Path, sources: Sequence[Source]) -> None:
    """Raise `PreparationError` where arrays would come to lie among scans, and one be taken for the other."""
    out, root = folder.resolve(), root.resolve()
    ours = {str(out / name) for name in ARRAYS}
    parents = {os.path.normpath((root / one).parent) for source in sources for one in source.inputs}
    if out == root or ours & parents:
        raise PreparationError(
            f"{printable(folder)}: holds the scans themselves. Next: give --out a folder of its own, which may lie "
            "inside that of the scans"
        )


def check_owner(folder: Path, recipe: Recipe) -> None:
    """Raise `PreparationError` where hours of work on other data would be deleted for a slip of the finger."""
    recorded = recorded_ids(folder)
    if recorded and not recorded & {source.id for source in recipe.sources}:
        raise PreparationError(
            f"{printable(folder)}: holds {len(recorded)} prepared sources of other data, and none of "
            f"{recipe.name!r}. Next: give --out another folder, or delete this one"
        )
