"""`quarantine.csv`: rows of a manifest that nothing reads, and why, one `id,code,reason` each."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from vissl_jointssl.atomic_file import write_at_once
from vissl_jointssl.manifest.csv_text import format_csv, parse_csv
from vissl_jointssl.manifest.entry import ManifestError
from vissl_jointssl.manifest.files import FileFault, read_text

QUARANTINE_FILE = "quarantine.csv"
_COLUMNS = ("id", "code", "reason")
_NEXT_STEP = "delete it and run `jointssl doctor --quarantine`, which writes it anew"


def read_quarantine(folder: Path) -> dict[str, tuple[str, str]]:
    """Code and reason by row id; empty where the folder has no list.

    Raises:
        ManifestError: If the list is there and cannot be understood: to ignore it would bring bad rows back.
    """
    path = folder / QUARANTINE_FILE
    try:
        rows = parse_csv(read_text(path))
    except FileNotFoundError:
        return {}
    except FileFault as fault:
        raise ManifestError(path, [str(fault)], _NEXT_STEP) from None
    except OSError as error:
        raise ManifestError(path, [f"cannot be read: {error.strerror}"], _NEXT_STEP) from None
    if not rows or tuple(rows[0]) != _COLUMNS or any(len(row) != len(_COLUMNS) or not row[0] for row in rows):
        raise ManifestError(path, [f"is not a table of {', '.join(_COLUMNS)}"], _NEXT_STEP)
    return {name: (code, reason) for name, code, reason in rows[1:]}


def write_quarantine(folder: Path, rows: Mapping[str, tuple[str, str]]) -> None:
    """Write the list in one step; without rows, remove it."""
    path = folder / QUARANTINE_FILE
    if not rows:
        path.unlink(missing_ok=True)
        return
    write_at_once(format_csv([_COLUMNS, *((name, *rows[name]) for name in sorted(rows))]), path)
