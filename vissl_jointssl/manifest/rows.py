"""A row of `manifest.csv` as text, and every fault it can have."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

from vissl_jointssl.manifest.entry import ARRAY_TYPES, COLUMNS, IMAGE_SUFFIXES, KINDS, OPTIONAL_COLUMNS, SPLITS, Entry

_SUFFIXES = {
    "path": (".npy", *IMAGE_SUFFIXES),
    "label_path": (".npy", ".png"),
    "boxes_path": (".json",),
    "grid_path": (".json",),
}
_SHAPE = re.compile(r"[0-9]{1,10}(x[0-9]{1,10}){1,3}")
_PLAIN = re.compile(r"[\x01-\x7f]*")
_BROKEN = re.compile(r"[\0\ud800-\udfff]")  # NUL, and halves of surrogate pairs: written, but never read back
_LABEL = re.compile(r"[0-9]{1,9}")


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
    faults = []
    if not _PLAIN.fullmatch("".join(row.values())):  # one look for all cells: most tables have nothing else
        faults += [f"{column} holds characters that UTF-8 cannot" for column in COLUMNS if _BROKEN.search(row[column])]
    for column, known in (("kind", KINDS), ("split", SPLITS), ("dtype", ARRAY_TYPES)):
        if row[column] not in known:
            faults.append(f"{column} is {row[column]!r}, expected one of {', '.join(known)}")
    faults += [f"{column} is empty" for column in ("id", "path", "patient", "modality") if not row[column].strip()]
    faults += [fault for column in _SUFFIXES for fault in _path_faults(column, row[column])]
    shape = tuple(int(length) for length in row["shape"].split("x")) if _SHAPE.fullmatch(row["shape"]) else ()
    dimensions = {"volume": (3, 4), "image": (2, 3)}.get(row["kind"], (2, 3))
    if len(shape) not in dimensions or min(shape) < 1 or (row["kind"] == "image" and shape[2:] not in ((), (3,))):
        faults.append(f"shape is {row['shape']!r}, expected FxHxW or CxFxHxW for a volume, HxW or HxWx3 for an image")
    spacing = _sizes(row["spacing"])
    if row["spacing"] and (len(spacing) != 3 or not all(math.isfinite(size) and size > 0 for size in spacing)):
        faults.append(f"spacing is {row['spacing']!r}, expected three sizes in mm such as 3.0x1.0x1.0, or nothing")
    if row["label"] and not _LABEL.fullmatch(row["label"]):
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
    if not text:
        return []
    if text[0] == "/" or ".." in text.split("/") or "\\" in text or "\0" in text:
        return [f"{column} is {text!r}, expected a path inside the manifest's folder, relative to it"]
    if not text.lower().endswith(_SUFFIXES[column]):
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


def _sizes(text: str) -> tuple[float, ...]:
    """`"3.0x1.5x1.5"` as numbers; empty where it is not that."""
    try:
        return tuple(float(part) for part in text.split("x"))
    except ValueError:
        return ()
