"""The contact sheet of a checkup: which scans to show, and what to write below them."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from vissl_jointssl.manifest import Entry
from vissl_jointssl.preparation.doctor.checkup import Checkup
from vissl_jointssl.preparation.doctor.contact_sheet import Tile, choose, contact_sheet
from vissl_jointssl.preparation.doctor.diagnosis import ERROR, Diagnosis, shown_path
from vissl_jointssl.preparation.doctor.facts import Facts
from vissl_jointssl.preparation.doctor.thumbnails import Thumbnail, row_thumbnail, source_thumbnail
from vissl_jointssl.preparation.recipe import Options, Source
from vissl_jointssl.preparation.workers import Lost, run_tasks


def preview(checkup: Checkup, root: Path, options: Options, jobs: int, timeout: float) -> bytes:
    """The page as a PNG file's bytes; slices are read once more, each in a worker process.

    Raw scans are called by their file's name, which the person who looks has given them; rows by their id. What is
    burned into the pixels, as names often are in ultrasound, is shown.

    Args:
        checkup: What was found.
        root: Folder that its paths are relative to.
        options: Of the recipe, for raw scans.
        jobs: Worker processes.
        timeout: Seconds for one scan.
    """
    faults: dict[str, list[Diagnosis]] = {}
    for one in checkup.diagnoses:
        faults.setdefault(one.id, []).append(one)
    faulty = [number for number, one in enumerate(checkup.subjects) if _is_faulty(faults.get(one.id, ()))]
    shown = [checkup.subjects[number] for number in choose(len(checkup.subjects), faulty)]
    small = partial(_thumbnail_of, root=root, options=options)
    thumbnails = dict(run_tasks(small, shown, jobs, timeout))
    facts = {one.id: one for one in checkup.facts}
    tiles = []
    for number, subject in enumerate(shown):
        thumbnail = thumbnails.get(number)
        found = faults.get(subject.id, ())
        name = subject.id if isinstance(subject, Entry) else shown_path(subject).rpartition("/")[2]
        tile = Tile(
            thumbnail=None if isinstance(thumbnail, Lost) else thumbnail,
            name=name,
            facts=_facts(facts.get(subject.id)),
            fault=", ".join(dict.fromkeys(one.code for one in found)),
            faulty=_is_faulty(found),
        )
        tiles.append(tile)
    return contact_sheet(tiles)


def _thumbnail_of(subject: Source | Entry, root: Path, options: Options) -> Thumbnail | None:
    if isinstance(subject, Entry):
        return row_thumbnail(subject, root)
    return source_thumbnail(subject, root, options)


def _is_faulty(found: list[Diagnosis] | tuple[()]) -> bool:
    return any(one.severity == ERROR for one in found)


def _facts(facts: Facts | None) -> str:
    """Such as `MR 35x51x35, 1x1x1 mm`."""
    if facts is None:
        return "cannot be read"
    text = f"{facts.modality} {'x'.join(str(length) for length in facts.shape)}"
    if facts.spacing is not None:
        text += f", {'x'.join(f'{size:.2g}' for size in facts.spacing)} mm"
    return text
