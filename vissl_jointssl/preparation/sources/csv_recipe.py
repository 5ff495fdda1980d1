"""A table of scans as a recipe: for who knows more about the data than a folder tells."""

from __future__ import annotations

import logging
import os
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from vissl_jointssl.manifest import KINDS, SPLITS
from vissl_jointssl.preparation.decoding.dicom import group_series
from vissl_jointssl.preparation.errors import PreparationError, printable
from vissl_jointssl.preparation.recipe import Recipe, Source
from vissl_jointssl.preparation.sources.class_numbers import number_classes
from vissl_jointssl.preparation.sources.csv_table import Row, read_table
from vissl_jointssl.preparation.sources.file_kinds import kind_of
from vissl_jointssl.preparation.sources.path_names import patient_of
from vissl_jointssl.preparation.splitting import hash_patient
from vissl_jointssl.spelling import nearest

OPTIONAL_COLUMNS = ("id", "patient", "kind", "modality", "split", "label_path", "label", "channel_paths")

_FAULTS_SHOWN = 50
_MODALITY = re.compile(r"[A-Z][A-Z0-9]{1,15}")
_log = logging.getLogger(__name__)


def csv_recipe(path: Path | str) -> Recipe:
    """The recipe of a CSV with one row per scan or image.

    Columns, of which only `path` is required; a cell may be empty where this says so:

    * `path`: a file, or a folder of one DICOM series, relative to the CSV's folder, or absolute;
    * `id`: unique, must name no patient; empty: a hash of the path;
    * `patient`: hashed, so names may be given; without this column told from the path, as in a plain folder;
    * `kind`: volume or image; empty: told by the file;
    * `modality`: CT, MR, XR, ...; empty: told by the file or its values;
    * `split`: train, val or test; empty: drawn by the patient;
    * `label_path`: the label map, or empty;
    * `label`: class of the whole scan, or empty. Numbers count from 0; any other text is a name, and classes are
      numbered in the order of their sorted names;
    * `channel_paths`: files of the second and further channels, divided by `;`, or empty.

    Further columns are named in the log and not used.

    Raises:
        PreparationError: With every fault of the table at once, by row.
    """
    path = Path(path)
    table = read_table(path, ("path",), OPTIONAL_COLUMNS)
    if table.extra:
        names = ", ".join(printable(name) for name in table.extra)
        _log.info("%s: columns that are not used: %s", printable(path), names)
    base = Path(os.path.abspath(path)).parent  # noqa: PTH100 - resolving would follow links away from the data
    texts = {row.number: row.cells["label"] for row in table.rows if row.cells.get("label")}
    labels, label_names, label_faults = number_classes(texts)
    faults = [*table.faults, *label_faults]
    found: list[_Files] = []
    for row in table.rows:
        files, row_faults = _files(row, base)
        faults += [f"row {row.number}: {fault}" for fault in (*row_faults, *_value_faults(row))]
        if files is not None:
            found.append(files)
            faults += [f"row {row.number}: {fault}" for fault in _patient_faults(files, base)]
    faults += _joint_faults(found)
    if not table.rows:
        faults.append("there is no row below the header")
    if faults:
        more = [f"and {len(faults) - _FAULTS_SHOWN} more"] if len(faults) > _FAULTS_SHOWN else []
        raise PreparationError(
            "\n  - ".join([f"{printable(path)} cannot be prepared:", *faults[:_FAULTS_SHOWN], *more])
        )
    every = [file for files in found for file in files.every]
    inside = all(file.is_relative_to(base) for file in every)
    root = base if inside else Path(os.path.commonpath([base, *every]))
    sources = tuple(_source(files, base, root, labels.get(files.row.number)) for files in found)
    if label_names and any(name != str(number) for number, name in enumerate(label_names)):
        _log.info("%s: classes: %s", printable(path), ", ".join(f"{n} {name}" for n, name in enumerate(label_names)))
    return Recipe(path.stem, root, sources, label_names=label_names)


@dataclass(frozen=True)
class _Files:
    """What a row names, as absolute paths that exist."""

    row: Row
    scan: Path
    kind: str
    patient: str
    label: Path | None
    channels: tuple[Path, ...]

    @property
    def every(self) -> tuple[Path, ...]:
        return (self.scan, *self.channels) if self.label is None else (self.scan, self.label, *self.channels)


def _files(row: Row, base: Path) -> tuple[_Files | None, list[str]]:
    faults = []

    def existing(column: str, text: str) -> Path:
        path = Path(os.path.normpath(base / text))
        if "\0" in text or not path.exists():
            faults.append(f"{column} {text!r} does not exist")
        return path

    cells = row.cells
    if not cells["path"]:
        return None, ["path is empty"]
    scan = existing("path", cells["path"])
    label = existing("label_path", cells["label_path"]) if cells.get("label_path") else None
    named = [name.strip() for name in cells.get("channel_paths", "").split(";")]
    channels = tuple(existing("channel_paths", name) for name in named if name)
    if faults:
        return None, faults
    kind = cells.get("kind") or _kind(scan)
    if kind not in KINDS and not cells.get("kind"):
        return None, [f"path {cells['path']!r} is {kind}"]
    if kind == "image" and channels:
        return None, ["channel_paths is given for an image, only volumes have further channels"]
    patient = cells.get("patient") or patient_of(PurePosixPath(os.path.relpath(scan, base)))
    return _Files(row, scan, kind, patient, label, channels), []


def _kind(path: Path) -> str:
    """One of `KINDS`, or in words what it is instead."""
    if path.is_dir():
        return "volume"
    kind = kind_of(path)
    if kind == "dicom":
        (group,) = group_series([path])
        return "volume" if group.damaged else group.form if group.form in KINDS else f"neither: {group.reason}"
    if kind == "samples":
        return "a MedMNIST file, which is prepared by itself, without a CSV"
    return kind or "of an unknown kind; a column kind may say volume or image"


def _value_faults(row: Row) -> list[str]:
    faults = []
    for column, known in (("kind", KINDS), ("split", SPLITS)):
        value = row.cells.get(column, "")
        if value and value not in known:
            faults.append(f"{column} is {value!r}, expected one of {', '.join(known)}{_meant(value, known)}")
    modality = row.cells.get("modality", "").upper()
    if modality and not _MODALITY.fullmatch(modality):
        faults.append(f"modality is {row.cells['modality']!r}, expected a word such as CT, MR or XR")
    id = row.cells.get("id", "")
    if id and not (id[0] != "." and all(letter.isalnum() or letter in "-_." for letter in id)):
        faults.append(f"id {id!r} cannot name a file: use letters, digits, - and _")
    if "patient" in row.cells and not row.cells["patient"]:
        faults.append("patient is empty; where a column says it, every row must")
    return faults


def _meant(value: str, known: Sequence[str]) -> str:
    near = nearest(value.lower(), known)
    return near if "did you mean" in near else ""


def _patient_faults(files: _Files, base: Path) -> list[str]:
    if "patient" in files.row.cells or files.scan.is_relative_to(base):
        return []
    return ["the scan lies outside the CSV's folder, so its path does not tell the patient; add a column patient"]


def _joint_faults(found: Sequence[_Files]) -> list[str]:
    """What only several rows together show. Patients are not named: their names may be people's."""
    faults = []
    rows_of: dict[tuple[str, str], list[int]] = defaultdict(list)
    split_of: dict[str, tuple[str, int]] = {}
    for files in found:
        cells, number = files.row.cells, files.row.number
        rows_of["id", cells.get("id", "")].append(number)
        rows_of["path", str(files.scan)].append(number if not cells.get("id") else -number)
        split, first = cells.get("split", ""), split_of.setdefault(files.patient, (cells.get("split", ""), number))
        if first[0] != split:
            both = f"{first[0] or 'none'} and {split or 'none'}"
            faults.append(f"rows {first[1]} and {number}: one patient in the splits {both}")
    for (column, value), rows in rows_of.items():
        if len(rows) > 1 and value and (column == "id" or max(rows) > 0):
            shown = ", ".join(str(abs(number)) for number in rows)
            hint = "" if column == "id" else "; give each an id of its own if that is meant"
            faults.append(f"rows {shown} have the same {column}{hint}")
    return faults


def _source(files: _Files, base: Path, root: Path, label: int | None) -> Source:
    cells = files.row.cells

    def relative(path: Path) -> str:
        return path.relative_to(root).as_posix()

    # By the CSV's folder and not by the root, which changes when a row of another place is added.
    own = PurePosixPath(os.path.relpath(files.scan, base))
    return Source(
        id=cells.get("id") or hash_patient(own.as_posix()),
        path=relative(files.scan),
        patient=hash_patient(files.patient),
        kind=files.kind,
        modality=cells.get("modality", "").upper() or None,
        split=cells.get("split") or None,
        label_path=None if files.label is None else relative(files.label),
        label=label,
        channel_paths=tuple(relative(path) for path in files.channels),
    )
