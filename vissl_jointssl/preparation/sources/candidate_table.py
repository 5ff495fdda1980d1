"""LUNA16's table of candidates: points in scans, each with a class."""

from __future__ import annotations

import csv
from collections import defaultdict
from pathlib import Path

from vissl_jointssl.preparation.errors import PreparationError, printable
from vissl_jointssl.preparation.recipe import Patch

COLUMNS = ["seriesuid", "coordX", "coordY", "coordZ", "class"]


def read_candidates(path: Path) -> dict[str, tuple[Patch, ...]]:
    """Candidates by scan, in the order of the table.

    The table has LPS mm, as ITK does; a patch has RAS mm.

    Args:
        path: A CSV with the columns of `COLUMNS`, such as `candidates_V2.csv`.

    Raises:
        PreparationError: If it has other columns, or a line is not a scan, three numbers and 0 or 1.
    """
    patches: dict[str, list[Patch]] = defaultdict(list)
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        rows = csv.reader(file)
        if next(rows, None) != COLUMNS:
            raise PreparationError(
                f"{printable(path)}: the columns are not {', '.join(COLUMNS)}. Next: get the file again from its home"
            )
        for row in rows:
            try:
                uid, x, y, z, label = row
                patches[uid].append(Patch((-float(x), -float(y), float(z)), ("0", "1").index(label)))
            except ValueError:
                raise PreparationError(
                    f"{printable(path)}: line {rows.line_num} is not a scan, three coordinates and a class of 0 or 1. "
                    "Next: get the file again from its home"
                ) from None
    return {uid: tuple(found) for uid, found in patches.items()}
