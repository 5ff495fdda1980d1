"""The rows of a manifest and the files behind them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from vissl_jointssl.manifest.arrays import float_faults, open_array
from vissl_jointssl.manifest.boxes import Box, read_boxes
from vissl_jointssl.manifest.entry import KINDS, OPTIONAL_COLUMNS, SPLITS, Entry, ManifestError
from vissl_jointssl.manifest.files import FileFault, confined
from vissl_jointssl.manifest.grid import Grid, read_grid
from vissl_jointssl.manifest.rows import to_row
from vissl_jointssl.spelling import nearest


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
            array = open_array(self.root, relative, shapes)
            if not any(_fits(array.shape, shape) for shape in shapes):
                raise FileFault(f"has shape {array.shape}, its row says {shapes[0]}")
            if dtype is not None and array.dtype != np.dtype(dtype):
                raise FileFault(f"has dtype {array.dtype}, its row says {dtype}")
            if dtype is None and array.dtype.kind not in "iu":
                raise FileFault(f"is a label map of dtype {array.dtype}, not of integers")
        except FileFault as fault:
            raise self._fault(entry, relative, fault) from None
        return array

    def _fault(self, entry: Entry, relative: str, fault: ValueError) -> ManifestError:
        return self._error([f"{relative} (row {entry.id!r}) {fault}"], "prepare this scan again, or drop its row")

    def _error(self, faults: Sequence[str], next_step: str) -> ManifestError:
        return ManifestError(self.path, faults, next_step)


def _fits(shape: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    """Whether a shape is the wanted one, in which 0 stands for any length."""
    return len(shape) == len(wanted) and all(want in (0, have) for have, want in zip(shape, wanted, strict=True))
