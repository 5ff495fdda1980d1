"""A row of `manifest.csv` as text, and every fault it can have."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

from vissl_jointssl.manifest.entry import ARRAY_TYPES, COLUMNS, IMAGE_SUFFIXES, KINDS, OPTIONAL_COLUMNS, SPLITS, Entry

_SUFFIXES = {
    "path": (".npy", *IMAGE_SUFFIXES),
    "label_path": (".npy", ".png"),
    "boxes_path": (".json",),
    "grid_path": (".json",),
}


def to_row(entry: Entry) -> dict[str, str]:
    """Cells by column; None is empty, tuples are joined by x."""

    def text(value: Any) -> str:
        if value is None:
            return ""
        return "x".join(str(part) for part in value) if isinstance(value, tuple) else str(value)

    return {column: text(getattr(entry, column)) for column in COLUMNS}


def from_row(row: dict[str, Any]) -> tuple[Entry | None, list[str]]:
    """An entry from the strings of a row, or None and what is wrong with them."""
    row = dict.fromkeys(OPTIONAL_COLUMNS, "") | row
    if None in row or None in row.values():
        return None, ["has more or fewer cells than the header"]
    faults = []
    for column, known in (("kind", KINDS), ("split", SPLITS), ("dtype", ARRAY_TYPES)):
        if row[column] not in known:
            faults.append(f"{column} is {row[column]!r}, expected one of {', '.join(known)}")
    faults += [f"{column} is empty" for column in ("id", "path", "patient", "modality") if not row[column].strip()]
    faults += [fault for column in _SUFFIXES for fault in _path_faults(column, row[column])]
    shape = _numbers(row["shape"], int)
    dimensions = {"volume": (3, 4), "image": (2, 3)}.get(row["kind"], (2, 3))
    if len(shape) not in dimensions or min(shape) < 1 or (row["kind"] == "image" and shape[2:] not in ((), (3,))):
        faults.append(f"shape is {row['shape']!r}, expected FxHxW or CxFxHxW for a volume, HxW or HxWx3 for an image")
    spacing = _numbers(row["spacing"], float)
    if row["spacing"] and (len(spacing) != 3 or not all(math.isfinite(size) and size > 0 for size in spacing)):
        faults.append(f"spacing is {row['spacing']!r}, expected three sizes in mm such as 3.0x1.0x1.0, or nothing")
    if row["label"] and not (row["label"].isascii() and row["label"].isdigit()):
        faults.append(f"label is {row['label']!r}, expected a class number counted from 0, or nothing")
    if len(row["sha256"]) != 64 or set(row["sha256"]) - set("0123456789abcdef"):
        faults.append(f"sha256 is {row['sha256']!r}, expected 64 lower-case hex digits")
    if faults:
        return None, faults
    parsed: dict[str, Any] = {column: row[column] for column in COLUMNS}
    parsed |= {column: row[column] or None for column in ("label_path", *OPTIONAL_COLUMNS)}
    parsed["label"] = int(row["label"]) if row["label"] else None
    parsed["spacing"], parsed["shape"] = spacing or None, shape
    return Entry(**parsed), []


def _path_faults(column: str, text: str) -> list[str]:
    path = PurePosixPath(text)
    if path.is_absolute() or ".." in path.parts or "\\" in text or "\0" in text:
        return [f"{column} is {text!r}, expected a path inside the manifest's folder, relative to it"]
    if text and path.suffix.lower() not in _SUFFIXES[column]:
        return [f"{column} is {text!r}, expected a {', '.join(_SUFFIXES[column])} file"]
    return []


def table_faults(entries: Sequence[Entry]) -> list[str]:
    """Faults that only several rows together show."""
    seen: set[str] = set()
    split_of: dict[str, str] = {}
    faults = []
    for entry in entries:
        if entry.id in seen:
            faults.append(f"id {entry.id!r} occurs twice")
        seen.add(entry.id)
        first = split_of.setdefault(entry.patient, entry.split)
        if first != entry.split:
            faults.append(
                f"patient {entry.patient!r} is in split {first!r} and, by row {entry.id!r}, in {entry.split!r}"
            )
    return faults


def _numbers(text: str, kind: type) -> tuple[Any, ...]:
    """`"16x64x64"` as numbers; empty where it is not that."""
    try:
        return tuple(kind(part) for part in text.split("x"))
    except ValueError:
        return ()
