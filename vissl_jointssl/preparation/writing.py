"""The cache on disk: arrays first, then a record of what they were made from, the manifest last.

A record is the proof that a source is done: it holds the content hash of its files, the options, and the rows made.
A run that is killed leaves arrays without a record, which the next run makes again, and records, which it trusts. An
array's name carries a digest of its options and source files, so a run with others never overwrites what the manifest
of the last one names.

    out/manifest.csv     written last
    out/volumes/         <id>-<digest><region>.npy, and ...-labels.npy
    out/images/          the same for images
    out/.records/        <id>.json
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from vissl_jointssl.manifest import Entry
from vissl_jointssl.preparation.errors import ReadError
from vissl_jointssl.preparation.pieces import Piece
from vissl_jointssl.preparation.recipe import Options, Source

_VERSION = 1  # raise it when the same source and options give other arrays than before


class Cache:
    """The prepared folder, one source at a time."""

    def __init__(self, folder: Path, root: Path) -> None:
        """Args: folder: where arrays go; root: what the sources' paths are relative to."""
        self.folder, self.root = folder, root

    def find(self, source: Source, options: Options) -> list[Entry] | None:
        """Rows of a source that is done: same options, same content, arrays in place. None otherwise."""
        record = self._read_record(source)
        if record is None or record["digest"] != _digest(source, options):
            return None
        entries = [_entry_from(row) for row in record["entries"]]
        if any(_size(self.folder / path) != size for path, size in record["sizes"].items()):
            return None
        stamps = self._stamps(source)
        if stamps == record["stamps"]:
            return entries
        if self._content(source) != record["content"]:
            return None
        self._write_record(source, {**record, "stamps": stamps})  # touched or copied, but the same bytes
        return entries

    def store(self, source: Source, options: Options, pieces: Iterable[Piece]) -> list[Entry]:
        """Write the arrays of a source and record them; returns its rows, without split."""
        digest = _digest(source, options)
        stamps, content = self._stamps(source), self._content(source)  # before reading: a file changed later is redone
        made_from = hashlib.sha256(json.dumps([digest, content]).encode()).hexdigest()[:8]
        entries, sizes = [], {}
        for piece in pieces:
            stem = f"{source.kind}s/{source.id}-{made_from}{piece.suffix}"
            label_path = None
            sha256 = self._save(f"{stem}.npy", piece.array)
            if piece.labels is not None:
                label_path = f"{stem}-labels.npy"
                self._save(label_path, piece.labels)
            entry = Entry(
                id=source.id + piece.suffix,
                kind=source.kind,
                path=f"{stem}.npy",
                label_path=label_path,
                label=piece.label,
                split="",
                patient=source.patient,
                modality=piece.modality,
                spacing=piece.spacing,
                shape=piece.array.shape,
                dtype=str(piece.array.dtype),
                sha256=sha256,
            )
            entries.append(entry)
            sizes.update({path: _size(self.folder / path) for path in (entry.path, entry.label_path) if path})
        rows = [asdict(entry) for entry in entries]
        record = {"digest": digest, "stamps": stamps, "content": content, "entries": rows, "sizes": sizes}
        self._write_record(source, record)
        return entries

    def recorded_paths(self, source: Source) -> set[str]:
        """Arrays that the last finished run over this source left, relative to the folder."""
        record = self._read_record(source)
        return set() if record is None else set(record["sizes"])

    def discard(self, paths: Iterable[str]) -> None:
        """Delete arrays that no row names any more; only files directly in volumes/ or images/ are touched."""
        for path in paths:
            parent, _, name = path.partition("/")
            if parent in ("volumes", "images") and "/" not in name and name.endswith(".npy"):
                (self.folder / parent / name).unlink(missing_ok=True)

    def _save(self, relative: str, array: np.ndarray) -> str:
        """Write an array in one step; returns the sha256 of the file."""
        path = self.folder / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        with partial.open("wb") as file:
            np.save(file, np.ascontiguousarray(array), allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())
        sha256 = _hash(partial)
        partial.replace(path)
        return sha256

    def _files(self, source: Source) -> Iterator[Path]:
        for relative in (source.path, source.label_path):
            if relative is None:
                continue
            path = self.root / relative
            yield from sorted(file for file in path.iterdir() if file.is_file()) if path.is_dir() else [path]

    def _stamps(self, source: Source) -> list[list[Any]]:
        """Name, size and time of every file: equal stamps spare hashing terabytes on every run."""
        stamps = []
        for file in self._files(source):
            if file.exists():
                status = file.stat()
                stamps.append([file.name, status.st_size, status.st_mtime_ns])
        return stamps

    def _content(self, source: Source) -> list[list[str]]:
        try:
            return [[file.name, _hash(file)] for file in self._files(source) if file.exists()]
        except PermissionError as error:
            raise ReadError(error.filename, "may not be read", "give yourself permission to read it") from None

    def _record_path(self, source: Source) -> Path:
        return self.folder / ".records" / f"{source.id}.json"

    def _read_record(self, source: Source) -> dict[str, Any] | None:
        try:
            record = json.loads(self._record_path(source).read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return None  # none, or cut short by a crash: the source is not done
        return record if isinstance(record, dict) and record.get("version") == _VERSION else None

    def _write_record(self, source: Source, record: dict[str, Any]) -> None:
        path = self._record_path(source)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps({"version": _VERSION, **record}), encoding="utf-8")
        partial.replace(path)


def _digest(source: Source, options: Options) -> str:
    """Of all that decides the arrays, apart from the files' content; the split is drawn anew on every run."""
    groups = sorted(source.label_groups.items()) if source.label_groups is not None else None
    facts = [source.kind, source.path, source.modality, source.label_path, groups, source.label, asdict(options)]
    return hashlib.sha256(json.dumps([_VERSION, *facts]).encode()).hexdigest()


def _entry_from(row: dict[str, Any]) -> Entry:
    spacing = tuple(row["spacing"]) if row["spacing"] is not None else None
    return Entry(**{**row, "shape": tuple(row["shape"]), "spacing": spacing})


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else -1


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
