"""`quarantine.csv`: rows of a manifest that nothing reads, and why, one `id,code,reason` each."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path

from vissl_jointssl.atomic_file import write_at_once
from vissl_jointssl.manifest.entry import ManifestError

QUARANTINE_FILE = "quarantine.csv"
_COLUMNS = ("id", "code", "reason")


def read_quarantine(folder: Path) -> dict[str, tuple[str, str]]:
    """Code and reason by row id; empty where the folder has no list.

    Raises:
        ManifestError: If the list is there and cannot be understood: to ignore it would bring bad rows back.
    """
    path = folder / QUARANTINE_FILE
    try:
        rows = list(csv.reader(io.StringIO(path.read_text(encoding="utf-8"), newline="")))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ManifestError(path, [f"cannot be read: {error}"], "run `jointssl doctor` again") from None
    if not rows or tuple(rows[0]) != _COLUMNS or any(len(row) != len(_COLUMNS) for row in rows):
        raise ManifestError(path, [f"is not a table of {', '.join(_COLUMNS)}"], "delete it and run `jointssl doctor`")
    return {name: (code, reason) for name, code, reason in rows[1:]}


def write_quarantine(folder: Path, rows: Mapping[str, tuple[str, str]]) -> None:
    """Write the list in one step; without rows, remove it."""
    path = folder / QUARANTINE_FILE
    if not rows:
        path.unlink(missing_ok=True)
        return
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    writer.writerows((name, *rows[name]) for name in sorted(rows))
    write_at_once(text.getvalue().encode("utf-8"), path)
