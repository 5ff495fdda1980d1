"""Reading and writing `manifest.csv`."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

from vissl_jointssl.atomic_file import write_at_once
from vissl_jointssl.manifest.content import Manifest
from vissl_jointssl.manifest.csv_text import format_csv, parse_csv
from vissl_jointssl.manifest.entry import COLUMNS, OPTIONAL_COLUMNS, Entry, ManifestError
from vissl_jointssl.manifest.files import FileFault, read_text
from vissl_jointssl.manifest.quarantine import QUARANTINE_FILE, read_quarantine
from vissl_jointssl.manifest.rows import from_row, table_faults, to_row
from vissl_jointssl.spelling import nearest

_TYPO = 0.75  # "boxes_pth" is 0.95 like "boxes_path", "boxes_count" 0.67
_RAGGED = "has more or fewer cells than the header"
_log = logging.getLogger(__name__)


def read_manifest(path: Path | str, *, with_quarantined: bool = False) -> Manifest:
    """Read and check a manifest; no array file is touched (`Manifest.check_files` does that).

    Args:
        path: `manifest.csv`, or its folder.
        with_quarantined: Keep the rows that `quarantine.csv` names; only who judges or rewrites them wants these.

    Raises:
        ManifestError: With every fault of the table at once: columns, values, duplicate ids, paths that leave the
            folder, patients that are in two splits; or if every row is in quarantine.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "manifest.csv"
    try:
        header, *lines = parse_csv(read_text(path)) or [[]]
    except FileNotFoundError:
        raise ManifestError(path, ["does not exist"], "run `jointssl prepare`, which writes it last") from None
    except FileFault as fault:
        raise ManifestError(path, [str(fault)], "run `jointssl prepare` again") from None
    except OSError as error:
        raise ManifestError(path, [f"cannot be read: {error.strerror}"], "check its permissions and disk") from None
    _check_header(path, header)
    entries: list[Entry] = []
    faults: list[str] = []
    for number, cells in enumerate(lines, start=2):
        row = dict(zip(header, cells, strict=False))
        entry, row_faults = from_row(row) if len(cells) == len(header) else (None, [_RAGGED])
        faults.extend(f"row {number} ({row.get('id')!r}): {fault}" for fault in row_faults)
        if entry is not None:
            entries.append(entry)
    faults.extend(table_faults(entries))
    if not entries and not faults:
        faults.append("holds no rows")
    if faults:
        raise ManifestError(path, faults, "correct these rows, or run `jointssl prepare` again")
    return Manifest(path, entries if with_quarantined else _outside_quarantine(path, entries))


def write_manifest(path: Path | str, entries: Iterable[Entry]) -> Manifest:
    """Write a manifest in one step: a reader sees the old one or the new one, never a part.

    Raises:
        ManifestError: If what would be written could not be read back.
    """
    path, entries = Path(path), tuple(entries)
    rows = [to_row(entry) for entry in entries]
    faults = [f"{entry.id!r}: {fault}" for entry, row in zip(entries, rows, strict=True) for fault in from_row(row)[1]]
    faults += table_faults(entries)
    if faults:
        raise ManifestError(path, faults, "correct the entries before writing them")
    write_at_once(format_csv([COLUMNS, *(list(row.values()) for row in rows)]), path)
    return Manifest(path, entries)


def _check_header(path: Path, found: Sequence[str]) -> None:
    missing = [column for column in COLUMNS if column not in found and column not in OPTIONAL_COLUMNS]
    faults = [f"column {name!r} occurs twice" for name in COLUMNS if found.count(name) > 1]
    if len(found) == 1 and missing:
        separators = [mark for mark in (";", "\t") if mark in found[0]]
        faults += [f"its cells are separated by {mark!r}, expected ','" for mark in separators]
    if not faults:
        spare = [name for name in found if name not in COLUMNS]
        faults = [f"column {name!r} is missing" + (nearest(name, spare) if spare else "") for name in missing]
        # Whoever misspells an optional column would train and evaluate without what is in it, and never know.
        absent = [name for name in OPTIONAL_COLUMNS if name not in found]
        for name in spare:
            for meant in difflib.get_close_matches(name.strip().lower(), absent, n=1, cutoff=_TYPO):
                faults.append(f"column {name!r} is not known; did you mean {meant}?")
    if faults:
        raise ManifestError(path, faults, f"the columns are {', '.join(COLUMNS)}")


def _outside_quarantine(path: Path, entries: Sequence[Entry]) -> list[Entry]:
    quarantine = read_quarantine(path.parent)
    kept = [entry for entry in entries if entry.id not in quarantine]
    left_out = len(entries) - len(kept)
    if not kept:
        raise ManifestError(
            path, ["all its rows are in quarantine"], f"see {QUARANTINE_FILE}, mend the scans and prepare them again"
        )
    if left_out:
        _log.info("%s: %d of %d rows are in quarantine", path, left_out, len(entries))
    if left_out < len(quarantine):
        stale = len(quarantine) - left_out
        _log.info("%s: %d of %d ids name no row of the manifest", path.parent / QUARANTINE_FILE, stale, len(quarantine))
    return kept
