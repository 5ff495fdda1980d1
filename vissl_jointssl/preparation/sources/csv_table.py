"""A table from a spreadsheet as rows of text, whatever byte order mark, delimiter or line end it has."""

from __future__ import annotations

import codecs
import csv
import difflib
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vissl_jointssl.preparation.errors import PreparationError, printable
from vissl_jointssl.spelling import nearest

_DELIMITERS = (",", ";", "\t")
_MOST_BYTES = 2**28  # millions of rows
_TYPO = 0.75  # "lable" is 0.8 like "label", "image_path" 0.6 like "label_path"


@dataclass(frozen=True)
class Row:
    """A row that is not empty.

    Attributes:
        number: As a spreadsheet shows it; the header is 1.
        cells: Text by column, without spaces around it; "" where empty.
    """

    number: int
    cells: dict[str, str]


@dataclass(frozen=True)
class Table:
    """Rows and what is wrong with their form.

    Attributes:
        rows: Those that have as many cells as the header.
        columns: Known ones that are there.
        extra: Columns that nobody asked for.
        faults: In words, with row numbers.
    """

    rows: tuple[Row, ...]
    columns: tuple[str, ...]
    extra: tuple[str, ...]
    faults: tuple[str, ...]


def read_table(path: Path, required: Sequence[str], optional: Sequence[str]) -> Table:
    """Read a CSV in UTF-8 or UTF-16, delimited by commas, semicolons or tabs.

    Raises:
        PreparationError: If the file cannot be read as such a table, or a required column is missing.
    """
    records = _records(path, _text(path))
    header = [name.strip().lower() for name in records[0]] if records else []
    if not any(header):
        raise PreparationError(f"{printable(path)}: holds no header. Next: name the columns in its first row")
    known = (*required, *optional)
    extra = tuple(name for name in header if name and name not in known)
    missing = [name for name in required if name not in header]
    if missing:
        words = "; ".join(f"column {name!r} is missing{nearest(name, extra) if extra else ''}" for name in missing)
        raise PreparationError(f"{printable(path)}: {words}. Next: the columns are {', '.join(known)}")
    faults = [f"column {name!r} occurs {count} times" for name, count in Counter(header).items() if name and count > 1]
    absent = [name for name in optional if name not in header]
    for name in extra:
        for meant in difflib.get_close_matches(name, absent, n=1, cutoff=_TYPO):
            faults.append(f"column {name!r} is not known; did you mean {meant}?")
    rows = []
    for number, record in enumerate(records[1:], start=2):
        cells = [cell.strip() for cell in record]
        if not any(cells):
            continue
        if any(cells[len(header) :]) or len(cells) < len(header):
            faults.append(f"row {number} has {len(cells)} cells, the header has {len(header)}")
            continue
        rows.append(Row(number, dict(zip(header, cells, strict=False))))
    return Table(tuple(rows), tuple(name for name in known if name in header), extra, tuple(faults))


def _text(path: Path) -> str:
    next_step = "Next: save it as CSV in UTF-8"
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise PreparationError(f"{printable(path)}: is too large for a table of scans. {next_step}")
        data = path.read_bytes()
    except OSError as error:
        raise PreparationError(f"{printable(path)}: cannot be read ({error.strerror}). Next: check the path") from None
    wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))  # Excel's "Unicode text"
    try:
        return data.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError:
        raise PreparationError(f"{printable(path)}: is not text in UTF-8. {next_step}") from None


def _records(path: Path, text: str) -> list[list[str]]:
    """Rows by the delimiter that divides the header into most cells."""
    first_line = text.split("\n", 1)[0]
    delimiter = max(_DELIMITERS, key=first_line.count)
    try:
        return list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise PreparationError(f"{printable(path)}: is no CSV ({error}). Next: save it as CSV in UTF-8") from None
