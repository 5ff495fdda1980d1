"""The cache on disk: arrays first, then a record of what they were made from, the manifest last.

A record is the proof that a source is done: it holds the content hash of its files, the options, and the rows made.
A run that is killed leaves arrays without a record, which the next run makes again, and records, which it trusts. An
array's name carries a digest of its options and source files, so a run with others never overwrites what the manifest
of the last one names.

    out/manifest.csv     written last
    out/report.json      what was left out and why, and what to know about the rest
    out/volumes/         <id>-<digest><part>.npy, ...-labels.npy, ...-grid.json
    out/images/          <id>-<digest>.npy, .png or .jpg, ...-labels.npy, ...-boxes.json
    out/.records/        <id>.json
    out/.lock            held by the run at work
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from vissl_jointssl.atomic_file import replaced_at_once, write_at_once
from vissl_jointssl.manifest import Entry, write_boxes, write_grid
from vissl_jointssl.preparation.cache.records import VERSION, content_of, digest_of, stamps_of
from vissl_jointssl.preparation.cache.sweeping import RECORDS
from vissl_jointssl.preparation.errors import ReadError
from vissl_jointssl.preparation.processing.piece import Piece
from vissl_jointssl.preparation.processing.pieces import pieces_of
from vissl_jointssl.preparation.recipe import Options, Source


class TargetError(Exception):
    """The prepared folder cannot be written to; the message says why."""


@dataclass(frozen=True)
class Prepared:
    """A source that is done.

    Attributes:
        rows: Without split, and without patient where it is the source's.
        notes: What a person should know about it.
    """

    rows: tuple[Entry, ...]
    notes: tuple[str, ...]

    @property
    def files(self) -> set[str]:
        """Every file of every row, relative to the folder."""
        return {file for row in self.rows for file in row.files}


class Cache:
    """The prepared folder, one source at a time; small enough to travel to worker processes."""

    def __init__(self, folder: Path, root: Path) -> None:
        """Args: folder: where arrays go; root: what the sources' paths are relative to."""
        self.folder, self.root = folder, root

    def find(self, source: Source, options: Options) -> Prepared | None:
        """A source that is done, told without opening its files: same options, same times, arrays in place."""
        record = self._sound_record(source, options)
        if record is None or stamps_of(source, self.root) != record["stamps"]:
            return None
        return _prepared(record)

    def renew(self, source: Source, options: Options) -> Prepared:
        """Prepare a source, unless its files were touched or copied and are the same.

        Raises:
            ReadError: If one of its files is at fault.
            TargetError: If the prepared folder cannot be written to.
        """
        digest = digest_of(source, options)
        # Before reading: a file that changes later is prepared again.
        stamps, content = stamps_of(source, self.root), content_of(source, self.root)
        record = self._sound_record(source, options)
        if record is None or record["content"] != content:
            made_from = hashlib.sha256(json.dumps([digest, content]).encode()).hexdigest()[:8]
            rows: list[Entry] = []
            notes: dict[str, None] = {}
            for piece in pieces_of(source, self.root, options):
                rows.append(self._store(source, piece, f"{source.kind}s/{source.id}-{made_from}{piece.suffix}"))
                notes |= dict.fromkeys(piece.notes)
            if not rows:
                raise ReadError(self.root / source.path, "holds no sample", "take it out", "empty")
            files = {file for row in rows for file in row.files}
            record = {
                "version": VERSION,
                "digest": digest,
                "content": content,
                "notes": list(notes),
                "entries": [asdict(row) for row in rows],
                "sizes": {file: _size(self.folder / file) for file in sorted(files)},
            }
        with _target():
            write_at_once(json.dumps({**record, "stamps": stamps}).encode(), self._record_path(source.id))
        return _prepared(record)

    def recorded_files(self, source: Source) -> set[str]:
        """What the last finished run over this source left, relative to the folder."""
        record = self._read_record(source)
        return set() if record is None else set(record["sizes"])

    def _store(self, source: Source, piece: Piece, stem: str) -> Entry:
        """Write what a piece consists of; returns its row."""
        suffix, data = piece.original or (".npy", None)
        path, label_path, boxes_path, grid_path = f"{stem}{suffix}", None, None, None
        with _target():
            sha256 = self._save(path, piece.array if data is None else data)
            if piece.labels is not None:
                label_path = f"{stem}-labels.npy"
                self._save(label_path, piece.labels)
            if piece.boxes is not None:
                boxes_path = f"{stem}-boxes.json"
                write_boxes(piece.boxes, self.folder / boxes_path)
            if piece.grid is not None:
                grid_path = f"{stem}-grid.json"
                write_grid(piece.grid, self.folder / grid_path)
        return Entry(
            id=source.id + piece.suffix,
            kind=source.kind,
            path=path,
            label_path=label_path,
            label=piece.label,
            split="",
            patient=piece.patient or "",
            modality=piece.modality,
            spacing=piece.spacing,
            shape=piece.array.shape,
            dtype=str(piece.array.dtype),
            sha256=sha256,
            boxes_path=boxes_path,
            grid_path=grid_path,
        )

    def _save(self, relative: str, content: np.ndarray | bytes) -> str:
        """Write a file in one step; returns its sha256."""
        with replaced_at_once(self.folder / relative) as stream:
            hashed = _Hashed(stream)
            if isinstance(content, bytes):
                hashed.write(content)
            else:
                np.lib.format.write_array(hashed, np.ascontiguousarray(content), allow_pickle=False)
        return hashed.sha256.hexdigest()

    def _record_path(self, id: str) -> Path:
        return self.folder / RECORDS / f"{id}.json"

    def _read_record(self, source: Source) -> dict[str, Any] | None:
        try:
            record = json.loads(self._record_path(source.id).read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return None  # none, or damaged: the source is not done
        expected = {"version", "digest", "stamps", "content", "notes", "entries", "sizes"}
        whole = isinstance(record, dict) and set(record) == expected and record["version"] == VERSION
        return record if whole else None

    def _sound_record(self, source: Source, options: Options) -> dict[str, Any] | None:
        """The record of a source that is done with these options, whatever its files hold by now."""
        record = self._read_record(source)
        if record is None or record["digest"] != digest_of(source, options):
            return None
        intact = all(_size(self.folder / file) == size for file, size in record["sizes"].items())
        return record if intact else None


class _Hashed:
    """A stream that hashes what it writes."""

    def __init__(self, stream: BinaryIO) -> None:
        self.stream, self.sha256 = stream, hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.sha256.update(data)
        return self.stream.write(data)


@contextmanager
def _target() -> Iterator[None]:
    """Faults of the target apart from those of the sources, which are `OSError`s as well."""
    try:
        yield
    except OSError as error:
        raise TargetError(error.strerror or type(error).__name__) from None


def _prepared(record: dict[str, Any]) -> Prepared:
    return Prepared(tuple(_entry_from(row) for row in record["entries"]), tuple(record["notes"]))


def _entry_from(row: dict[str, Any]) -> Entry:
    spacing = tuple(row["spacing"]) if row["spacing"] is not None else None
    return Entry(**{**row, "shape": tuple(row["shape"]), "spacing": spacing})


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1
