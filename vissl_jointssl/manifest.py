"""The door between preparation and everything after it: the table of volumes and images.

A prepared folder holds arrays, and `manifest.csv` that names them, one row each. Preparation writes it last, so a
manifest that exists is complete; training, evaluation and export read nothing else. Paths in it are relative to
its own folder, which can therefore be moved. It needs NumPy only, so that a notebook can read it.

A volume is an array `(F, H, W)` in `.npy`, or `(C, F, H, W)` with several channels on one grid, such as the sequences
of an MRI; it is memory-mapped on reading. An image is `(H, W)` or `(H, W, 3)` in `.npy`, PNG or JPEG. Integers stand
for [0, 1] by their own range, see `as_unit_interval`.
"""

from __future__ import annotations

import csv
import difflib
import hashlib
import io
import math
import os
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

KINDS = ("volume", "image")
SPLITS = ("train", "val", "test")
ARRAY_TYPES = ("uint8", "uint16", "float16", "float32")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")


class ManifestError(ValueError):
    """One or more faults of a manifest or of the files that it names; `faults` lists them one by one."""

    def __init__(self, path: Path, faults: Sequence[str], next_step: str) -> None:
        self.path, self.faults = path, tuple(faults)
        shown = [f"  - {fault}" for fault in self.faults[:50]]
        if len(self.faults) > len(shown):
            shown.append(f"  - and {len(self.faults) - len(shown)} more")
        count = "1 fault" if len(self.faults) == 1 else f"{len(self.faults)} faults"
        super().__init__("\n".join([f"{path}: {count}", *shown, f"Next: {next_step}"]))


@dataclass(frozen=True)
class Entry:
    """One row: an array and what is known about it.

    Attributes:
        id: Unique name of the row.
        kind: "volume" or "image".
        path: The array file, relative to the manifest's folder, with forward slashes.
        label_path: Label map `.npy` of the same `(F, H, W)` or `(H, W)`, whatever the channels, or None.
        label: Class of the whole sample, counted from 0, or None.
        split: "train", "val" or "test".
        patient: Opaque, already hashed; rows of one patient share a split.
        modality: "CT", "MR", "XR", ...
        spacing: Size of a voxel along (F, H, W) in mm, or None where unknown.
        shape: Of the array.
        dtype: Of the array: uint8, uint16, float16 or float32.
        sha256: Of the array file, 64 hex digits.
    """

    id: str
    kind: str
    path: str
    label_path: str | None
    label: int | None
    split: str
    patient: str
    modality: str
    spacing: tuple[float, float, float] | None
    shape: tuple[int, ...]
    dtype: str
    sha256: str


COLUMNS = tuple(field.name for field in fields(Entry))


class Manifest:
    """The rows of a `manifest.csv`, and the arrays behind them."""

    def __init__(self, path: Path | str, entries: Iterable[Entry]) -> None:
        self.path = Path(path)
        self.entries = tuple(entries)

    @property
    def root(self) -> Path:
        """The folder that every path of a row is relative to."""
        return self.path.parent

    def __len__(self) -> int:
        return len(self.entries)

    def select(self, kind: str | None = None, splits: Sequence[str] | None = None) -> tuple[Entry, ...]:
        """Rows of one kind and of some splits, in the manifest's order; None takes all.

        Raises:
            ValueError: If the kind or a split does not exist.
        """
        if isinstance(splits, str):
            splits = (splits,)
        for what, asked, known in (("kind", [kind] if kind else [], KINDS), ("split", splits or (), SPLITS)):
            for name in asked:
                if name not in known:
                    raise ValueError(
                        f"no {what} is called {name!r}{_near_miss(name, known)}; one of {', '.join(known)}"
                    )
        return tuple(
            entry
            for entry in self.entries
            if (kind is None or entry.kind == kind) and (splits is None or entry.split in splits)
        )

    def open(self, entry: Entry) -> np.ndarray:
        """The array of a row: read-only and memory-mapped where it is `.npy`, so that a crop reads only itself.

        Raises:
            ManifestError: If the file is missing, empty, cut short, or not of the row's shape and dtype.
        """
        return self._load(entry, entry.path, entry.shape, entry.dtype)

    def open_label(self, entry: Entry) -> np.ndarray:
        """The label map of a row, an integer array on the row's grid.

        Raises:
            ManifestError: If the row has none, or as in `open`.
        """
        if entry.label_path is None:
            raise self._error([f"row {entry.id!r} has no label map"], "select rows whose label_path is not None")
        return self._load(entry, entry.label_path, _grid(entry), None)

    def fingerprint(self) -> str:
        """sha256 over the rows, whatever their order: equal for equal data, wherever it lies."""
        lines = sorted(repr(_to_row(entry)) for entry in self.entries)
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    def check_files(self) -> None:
        """Look at every file's existence, header and size without reading its voxels, before any training step.

        Floating-point arrays are read as well, for they alone can hold NaN, infinities or values outside [0, 1],
        and so are PNG and JPEG files, whose header does not tell whether they are whole.

        Raises:
            ManifestError: With every fault of every row.
        """
        faults: list[str] = []
        for entry in self.entries:
            for opener in (self.open, self.open_label) if entry.label_path else (self.open,):
                try:
                    array = opener(entry)
                except ManifestError as error:
                    faults.extend(error.faults)
                    continue
                if array.dtype.kind == "f":
                    faults.extend(_float_faults(entry, array))
        if faults:
            raise self._error(faults, "prepare these scans again, or take their rows out of the manifest")

    def _load(self, entry: Entry, relative: str, shape: tuple[int, ...], dtype: str | None) -> np.ndarray:
        path = self.root / relative
        fault = None
        try:
            if not path.resolve().is_relative_to(self.root.resolve()):
                fault = "is a link that leaves the manifest's folder"
            elif path.suffix.lower() in IMAGE_SUFFIXES:
                array = _decode_image(path)
            else:
                array = np.load(path, mmap_mode="r", allow_pickle=False)
        except FileNotFoundError:
            fault = "does not exist"
        except (ValueError, OSError, EOFError, SyntaxError) as error:
            size = path.stat().st_size if path.is_file() else 0
            fault = f"cannot be read ({size} bytes; {str(error).splitlines()[0] if str(error) else 'empty'})"
        if fault is None:
            if array.shape != shape:
                fault = f"has shape {array.shape}, its row says {shape}"
            elif dtype is not None and array.dtype != np.dtype(dtype):
                fault = f"has dtype {array.dtype}, its row says {dtype}"
            elif dtype is None and array.dtype.kind not in "iu":
                fault = f"is a label map of dtype {array.dtype}, not of integers"
        if fault is not None:
            raise self._error([f"{relative} (row {entry.id!r}) {fault}"], "prepare this scan again, or drop its row")
        return array

    def _error(self, faults: Sequence[str], next_step: str) -> ManifestError:
        return ManifestError(self.path, faults, next_step)


def as_unit_interval(array: np.ndarray) -> np.ndarray:
    """Stored values as float32 in [0, 1]: integers divided by the largest of their type, floats as they are."""
    values = np.asarray(array)
    if values.dtype.kind in "iu":
        return values.astype(np.float32) / np.float32(np.iinfo(values.dtype).max)
    return values.astype(np.float32)


def read_manifest(path: Path | str) -> Manifest:
    """Read and check a manifest; no array file is touched (`Manifest.check_files` does that).

    Raises:
        ManifestError: With every fault of the table at once: columns, values, duplicate ids, paths that leave the
            folder, patients that are in two splits.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "manifest.csv"
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ManifestError(path, ["does not exist"], "run `jointssl prepare`, which writes it last") from None
    except (UnicodeDecodeError, OSError) as error:
        raise ManifestError(path, [f"cannot be read as text: {error}"], "run `jointssl prepare` again") from None
    reader = csv.DictReader(io.StringIO(text, newline=""))
    found = list(reader.fieldnames or [])
    missing = [column for column in COLUMNS if column not in found]
    if missing:
        spare = [name for name in found if name not in COLUMNS]
        faults = [f"column {name!r} is missing" + _near_miss(name, spare) for name in missing]
        raise ManifestError(path, faults, f"the columns are {', '.join(COLUMNS)}")
    entries, faults = [], []
    for number, row in enumerate(reader, start=2):
        entry, row_faults = _from_row(row)
        faults.extend(f"row {number} ({row.get('id')!r}): {fault}" for fault in row_faults)
        if entry is not None:
            entries.append(entry)
    faults.extend(_table_faults(entries))
    if not entries and not faults:
        faults.append("holds no rows")
    if faults:
        raise ManifestError(path, faults, "correct these rows, or run `jointssl prepare` again")
    return Manifest(path, entries)


def write_manifest(path: Path | str, entries: Iterable[Entry]) -> Manifest:
    """Write a manifest in one step: a reader sees the old one or the new one, never a part.

    Raises:
        ManifestError: If what would be written could not be read back.
    """
    path, entries = Path(path), tuple(entries)
    faults = [f"{entry.id!r}: {fault}" for entry in entries for fault in _from_row(_to_row(entry))[1]]
    faults += _table_faults(entries)
    if faults:
        raise ManifestError(path, faults, "correct the entries before writing them")
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(_to_row(entry) for entry in entries)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".manifest-")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(text.getvalue().encode("utf-8"))
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)  # temporary files are private to their owner, a manifest is for the group
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return Manifest(path, entries)


def _to_row(entry: Entry) -> dict[str, str]:
    def text(value: Any) -> str:
        if value is None:
            return ""
        return "x".join(str(part) for part in value) if isinstance(value, tuple) else str(value)

    return {column: text(getattr(entry, column)) for column in COLUMNS}


def _from_row(row: dict[str, Any]) -> tuple[Entry | None, list[str]]:
    """An entry from the strings of a row, or None and what is wrong with them."""
    if None in row or None in row.values():
        return None, ["has more or fewer cells than the header"]
    faults = []
    for column, known in (("kind", KINDS), ("split", SPLITS), ("dtype", ARRAY_TYPES)):
        if row[column] not in known:
            faults.append(f"{column} is {row[column]!r}, expected one of {', '.join(known)}")
    faults += [f"{column} is empty" for column in ("id", "path", "patient", "modality") if not row[column].strip()]
    faults += [fault for column in ("path", "label_path") for fault in _path_faults(column, row[column])]
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
    parsed["label_path"] = row["label_path"] or None
    parsed["label"] = int(row["label"]) if row["label"] else None
    parsed["spacing"], parsed["shape"] = spacing or None, shape
    return Entry(**parsed), []


def _path_faults(column: str, text: str) -> list[str]:
    path = PurePosixPath(text)
    if path.is_absolute() or ".." in path.parts or "\\" in text or "\0" in text:
        return [f"{column} is {text!r}, expected a path inside the manifest's folder, relative to it"]
    if text and path.suffix.lower() not in (".npy", *IMAGE_SUFFIXES):
        return [f"{column} is {text!r}, expected a .npy, .png or .jpg file"]
    return []


def _table_faults(entries: Sequence[Entry]) -> list[str]:
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


def _near_miss(name: str, candidates: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, candidates, n=1)
    return f" ({close[0]!r} looks like it)" if close else ""


def _grid(entry: Entry) -> tuple[int, ...]:
    return entry.shape[-3:] if entry.kind == "volume" else entry.shape[:2]


def _float_faults(entry: Entry, array: np.ndarray) -> list[str]:
    low, high = float(array.min()), float(array.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        return [f"{entry.path} (row {entry.id!r}) holds NaN or infinite values"]
    if low < 0 or high > 1:
        return [f"{entry.path} (row {entry.id!r}) holds values in [{low:g}, {high:g}], floats must lie in [0, 1]"]
    return []


def _decode_image(path: Path) -> np.ndarray:
    from PIL import Image

    try:
        with Image.open(path) as image:
            return np.array(image)
    except Image.DecompressionBombError as error:
        raise ValueError(str(error)) from None
