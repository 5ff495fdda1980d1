"""Keeping `quarantine.csv` true: faulty rows in, mended rows out."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from vissl_jointssl.manifest import read_quarantine, write_quarantine
from vissl_jointssl.preparation.doctor.diagnosis import CODES, ERROR, Diagnosis


@dataclass(frozen=True)
class Changes:
    """What became of the list.

    Attributes:
        added: Ids that are on it now and were not.
        removed: Ids that were on it and are sound now, or are no rows any more.
        kept: Ids that were on it and are.
    """

    added: tuple[str, ...]
    removed: tuple[str, ...]
    kept: tuple[str, ...]


def update_quarantine(folder: Path, ids: Collection[str], diagnoses: Iterable[Diagnosis]) -> Changes:
    """Write the list anew: every row with an error, with its first one as the reason; warnings put nobody there.

    What stands on the list under a code that is none of `diagnosis.CODES` was put there by a person, and stays.

    Args:
        folder: Of the manifest.
        ids: Of every row that was examined, those in quarantine too.
        diagnoses: Of all of them.

    Raises:
        ManifestError: If a list is there and cannot be understood.
    """
    before = read_quarantine(folder)
    after = {id: row for id, row in before.items() if row[0] not in CODES and id in ids}
    for one in diagnoses:
        if one.severity == ERROR and one.id in ids:
            after.setdefault(one.id, (one.code, one.reason))
    if after != before:
        write_quarantine(folder, after)
    return Changes(
        added=tuple(sorted(after.keys() - before.keys())),
        removed=tuple(sorted(before.keys() - after.keys())),
        kept=tuple(sorted(after.keys() & before.keys())),
    )
