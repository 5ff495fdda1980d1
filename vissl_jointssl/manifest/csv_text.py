"""Tables as CSV: what is written is read back, whatever the cells hold."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

from vissl_jointssl.manifest.files import FileFault


def parse_csv(text: str) -> list[list[str]]:
    """Rows of cells; empty lines are left out. Both kinds of line ends are read.

    Raises:
        FileFault: If a cell is longer than `csv.field_size_limit()`.
    """
    try:
        return [row for row in csv.reader(io.StringIO(text, newline="")) if row]
    except csv.Error as error:
        raise FileFault(f"cannot be read as CSV: {error}") from None


def format_csv(rows: Iterable[Sequence[str]]) -> bytes:
    """UTF-8, a line per row."""
    text = io.StringIO(newline="")
    plain = csv.writer(text, lineterminator="\n")
    quoting = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL)
    for row in rows:
        # Python before 3.13 leaves a lone carriage return unquoted, which readers take for the end of the row.
        (quoting if any("\r" in cell for cell in row) else plain).writerow(row)
    return text.getvalue().encode("utf-8")
