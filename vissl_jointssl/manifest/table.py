"""Reading and writing `manifest.csv`, and opening what its rows name."""

from __future__ import annotations

import csv
import hashlib
import io
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from vissl_jointssl.atomic_file import write_at_once
from vissl_jointssl.manifest.arrays import ArrayFault, confined, float_faults, open_array
from vissl_jointssl.manifest.boxes import Box, read_boxes
from vissl_jointssl.manifest.entry import COLUMNS, KINDS, OPTIONAL_COLUMNS, SPLITS, Entry, ManifestError
from vissl_jointssl.manifest.grid import Grid, read_grid
from vissl_jointssl.manifest.quarantine import QUARANTINE_FILE, read_quarantine
from vissl_jointssl.manifest.rows import from_row, table_faults, to_row
from vissl_jointssl.spelling import nearest

_log = logging.getLogger(__name__)


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
                    raise ValueError(f"no {what} is called {name!r}{nearest(name, known)}")
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
        return self._load(entry, entry.path, [entry.shape], entry.dtype)

    def open_label(self, entry: Entry) -> np.ndarray:
        """The label map of a row: integers on the row's grid, or `(L, ...)` planes of 0 and 1 (see `Entry`).

        Raises:
            ManifestError: If the row has none, or as in `open`.
        """
        if entry.label_path is None:
            raise self._error([f"row {entry.id!r} has no label map"], "select rows whose label_path is not None")
        return self._load(entry, entry.label_path, [entry.grid_shape, (0, *entry.grid_shape)], None)

    def open_boxes(self, entry: Entry) -> tuple[Box, ...]:
        """The boxes of a row, in pixels of its array.

        Raises:
            ManifestError: If the row has none, or their file is missing or not a list of boxes inside the array.
        """
        if entry.boxes_path is None:
            raise self._error([f"row {entry.id!r} has no boxes"], "select rows whose boxes_path is not None")
        try:
            return read_boxes(confined(self.root, entry.boxes_path), entry.grid_shape[-2:])
        except ValueError as fault:
            raise self._fault(entry, entry.boxes_path, fault) from None

    def open_grid(self, entry: Entry) -> Grid:
        """Where the array of a row lies in the scan it was made from.

        Raises:
            ManifestError: If the row does not say it, or the file is missing or damaged.
        """
        if entry.grid_path is None:
            raise self._error([f"row {entry.id!r} has no grid"], "select rows whose grid_path is not None")
        try:
            return read_grid(confined(self.root, entry.grid_path))
        except ValueError as fault:
            raise self._fault(entry, entry.grid_path, fault) from None

    def fingerprint(self) -> str:
        """sha256 over the rows, whatever their order: equal for equal data, wherever it lies."""
        rows = [to_row(entry) for entry in self.entries]
        for row in rows:  # a column that is younger than the data does not change what the data is called
            for column in OPTIONAL_COLUMNS:
                if not row[column]:
                    del row[column]
        lines = sorted(repr(row) for row in rows)
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
            faults.extend(self.faults_of(entry))
        if faults:
            raise self._error(faults, "prepare these scans again, or take their rows out of the manifest")

    def faults_of(self, entry: Entry) -> list[str]:
        """Faults of the files of one row; see `check_files`."""
        faults: list[str] = []
        openers = (
            (entry.path, self.open),
            (entry.label_path, self.open_label),
            (entry.boxes_path, self.open_boxes),
            (entry.grid_path, self.open_grid),
        )
        for relative, opener in openers:
            if relative is None:
                continue
            try:
                content = opener(entry)
            except ManifestError as error:
                faults.extend(error.faults)
                continue
            if isinstance(content, np.ndarray) and content.dtype.kind == "f":
                faults.extend(f"{relative} (row {entry.id!r}) {fault}" for fault in float_faults(content))
        return faults

    def _load(self, entry: Entry, relative: str, shapes: Sequence[tuple[int, ...]], dtype: str | None) -> np.ndarray:
        try:
            array = open_array(self.root, relative)
            if not any(_fits(array.shape, shape) for shape in shapes):
                raise ArrayFault(f"has shape {array.shape}, its row says {shapes[0]}")
            if dtype is not None and array.dtype != np.dtype(dtype):
                raise ArrayFault(f"has dtype {array.dtype}, its row says {dtype}")
            if dtype is None and array.dtype.kind not in "iu":
                raise ArrayFault(f"is a label map of dtype {array.dtype}, not of integers")
        except ArrayFault as fault:
            raise self._fault(entry, relative, fault) from None
        return array

    def _fault(self, entry: Entry, relative: str, fault: ValueError) -> ManifestError:
        return self._error([f"{relative} (row {entry.id!r}) {fault}"], "prepare this scan again, or drop its row")

    def _error(self, faults: Sequence[str], next_step: str) -> ManifestError:
        return ManifestError(self.path, faults, next_step)


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
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ManifestError(path, ["does not exist"], "run `jointssl prepare`, which writes it last") from None
    except (UnicodeDecodeError, OSError) as error:
        raise ManifestError(path, [f"cannot be read as text: {error}"], "run `jointssl prepare` again") from None
    reader = csv.DictReader(io.StringIO(text, newline=""))
    found = list(reader.fieldnames or [])
    missing = [column for column in COLUMNS if column not in found and column not in OPTIONAL_COLUMNS]
    if missing:
        spare = [name for name in found if name not in COLUMNS]
        faults = [f"column {name!r} is missing" + (nearest(name, spare) if spare else "") for name in missing]
        raise ManifestError(path, faults, f"the columns are {', '.join(COLUMNS)}")
    entries, faults = [], []
    for number, row in enumerate(reader, start=2):
        entry, row_faults = from_row(row)
        faults.extend(f"row {number} ({row.get('id')!r}): {fault}" for fault in row_faults)
        if entry is not None:
            entries.append(entry)
    faults.extend(table_faults(entries))
    if not entries and not faults:
        faults.append("holds no rows")
    if faults:
        raise ManifestError(path, faults, "correct these rows, or run `jointssl prepare` again")
    return Manifest(path, entries if with_quarantined else _outside_quarantine(path, entries))


def _outside_quarantine(path: Path, entries: Sequence[Entry]) -> list[Entry]:
    quarantine = read_quarantine(path.parent)
    kept = [entry for entry in entries if entry.id not in quarantine]
    if not kept:
        raise ManifestError(
            path, ["all its rows are in quarantine"], f"see {QUARANTINE_FILE}, mend the scans and prepare them again"
        )
    if len(kept) < len(entries):
        _log.info("%s: %d of %d rows are in quarantine", path, len(entries) - len(kept), len(entries))
    return kept


def write_manifest(path: Path | str, entries: Iterable[Entry]) -> Manifest:
    """Write a manifest in one step: a reader sees the old one or the new one, never a part.

    Raises:
        ManifestError: If what would be written could not be read back.
    """
    path, entries = Path(path), tuple(entries)
    faults = [f"{entry.id!r}: {fault}" for entry in entries for fault in from_row(to_row(entry))[1]]
    faults += table_faults(entries)
    if faults:
        raise ManifestError(path, faults, "correct the entries before writing them")
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(to_row(entry) for entry in entries)
    write_at_once(text.getvalue().encode("utf-8"), path)
    return Manifest(path, entries)


def _fits(shape: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    """Whether a shape is the wanted one, in which 0 stands for any length."""
    return len(shape) == len(wanted) and all(want in (0, have) for have, want in zip(shape, wanted, strict=True))
