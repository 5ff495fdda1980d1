"""Faults of DICOM series, each under its own code where the reader puts all of them into one line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vissl_jointssl.preparation.decoding.dicom import series_faults
from vissl_jointssl.preparation.doctor.diagnosis import Diagnosis, Fault, error, of_read_error, shown_path, warning
from vissl_jointssl.preparation.errors import ReadError
from vissl_jointssl.preparation.recipe import Source

_LOOK = "look at it; leave it out if that matters to you"


def refused(fault: ReadError, source: Source, root: Path) -> list[Diagnosis]:
    """What a reader refused, and for a DICOM series every kind of fault in its geometry."""
    found = []
    if fault.path == root / source.path:
        geometry = [error(code, words, fault.next_step) for code, words in _geometry(source, root)]
        found = [one.about(source.id, shown_path(source)) for one in geometry if one.code != "gantry_tilt"]
    known = any(one.code == fault.code for one in found)
    return found if known else [of_read_error(fault, source, root), *found]


def note_faults(notes: Sequence[str], source: Source, root: Path) -> list[Fault]:
    """What the reader noticed and lived with."""
    tilts = {words for code, words in _geometry(source, root) if code == "gantry_tilt"} if notes else set()
    return [warning("gantry_tilt" if note in tilts else "note", note, _LOOK) for note in notes]


def _geometry(source: Source, root: Path) -> list[tuple[str, str]]:
    """Faults by the headers alone; none for what is no DICOM series."""
    path = root / source.path
    if source.kind != "volume" or not path.is_dir():
        return []
    try:
        return series_faults(path, [root / file for file in source.files])
    except ReadError:
        return []  # the reader has said it already
