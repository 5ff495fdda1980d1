"""Every source of a recipe, or every row of a prepared folder, looked at in worker processes and then together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from vissl_jointssl.manifest import Entry, ManifestError, read_manifest, read_quarantine
from vissl_jointssl.preparation.doctor.diagnosis import ERROR, WARNING, Diagnosis, error, of_whole_set, shown_path
from vissl_jointssl.preparation.doctor.duplicates import duplicate_diagnoses
from vissl_jointssl.preparation.doctor.facts import Examined, Facts
from vissl_jointssl.preparation.doctor.outliers import outlier_diagnoses
from vissl_jointssl.preparation.doctor.prepared import examine_row
from vissl_jointssl.preparation.doctor.prepared_set import report_diagnoses, split_diagnoses
from vissl_jointssl.preparation.doctor.quarantining import Changes, update_quarantine
from vissl_jointssl.preparation.doctor.raw import examine_source
from vissl_jointssl.preparation.recipe import Recipe, Source
from vissl_jointssl.preparation.workers import Lost, run_tasks

RAW, PREPARED = "raw", "prepared"
Progress = Callable[[int, int], None]  # done, in all
Subject = TypeVar("Subject", Source, Entry)


@dataclass(frozen=True)
class Checkup:
    """What was found.

    Attributes:
        form: "raw" or "prepared".
        subjects: Sources or rows that were looked at.
        facts: Of those that could be read.
        diagnoses: Of all, those in quarantine too; errors first, then in the order of the subjects.
        quarantined: Ids of rows that training does not read.
        changes: To the list of quarantine, if it was asked for.
    """

    form: str
    subjects: tuple[Source | Entry, ...]
    facts: tuple[Facts, ...]
    diagnoses: tuple[Diagnosis, ...]
    quarantined: frozenset[str] = frozenset()
    changes: Changes | None = None

    @property
    def standing(self) -> tuple[Diagnosis, ...]:
        """Diagnoses outside quarantine."""
        return tuple(one for one in self.diagnoses if one.id not in self.quarantined)

    @property
    def errors(self) -> tuple[Diagnosis, ...]:
        """Errors outside quarantine: with any, training may not start."""
        return tuple(one for one in self.standing if one.severity == ERROR)

    @property
    def warnings(self) -> tuple[Diagnosis, ...]:
        """Warnings outside quarantine."""
        return tuple(one for one in self.standing if one.severity == WARNING)


def check_raw(recipe: Recipe, jobs: int, timeout: float, progress: Progress | None = None) -> Checkup:
    """Look at every source of a recipe as `jointssl prepare` would read it.

    Args:
        recipe: See `recipe.Recipe`.
        jobs: Worker processes.
        timeout: Seconds for one source.
        progress: Called after each source.
    """
    examine = partial(examine_source, root=Path(recipe.root), options=recipe.options, classes=len(recipe.label_names))
    facts, diagnoses = _examine(examine, recipe.sources, jobs, timeout, progress)
    diagnoses += duplicate_diagnoses(facts) + outlier_diagnoses(facts, prepared=False)
    return Checkup(RAW, recipe.sources, tuple(facts), _in_order(diagnoses, recipe.sources))


def check_prepared(
    folder: Path,
    jobs: int,
    timeout: float,
    progress: Progress | None = None,
    *,
    with_hash: bool = True,
    quarantine: bool = False,
) -> Checkup:
    """Look at every row of a prepared folder, those in quarantine too, and at the folder as a whole.

    Args:
        folder: Holds `manifest.csv`.
        jobs: Worker processes.
        timeout: Seconds for one row.
        progress: Called after each row.
        with_hash: Whether to compare array files with the sha256 of their rows.
        quarantine: Whether to bring the list of quarantine up to date; what is on it then does not count.
    """
    try:
        entries = read_manifest(folder, with_quarantined=True).entries
        before = read_quarantine(folder)
    except ManifestError as fault:
        unusable = [error("manifest", f"{fault.path.name}: {reason}", fault.next_step) for reason in fault.faults]
        return Checkup(PREPARED, (), (), tuple(of_whole_set(unusable)))
    examine = partial(examine_row, root=folder, with_hash=with_hash)
    facts, diagnoses = _examine(examine, entries, jobs, timeout, progress)
    diagnoses += duplicate_diagnoses(facts)
    changes = None
    ids = {entry.id for entry in entries}
    if quarantine:
        changes = update_quarantine(folder, ids, _in_order(diagnoses, entries))
        before = read_quarantine(folder)
    quarantined = frozenset(before) & ids
    readable = [one for one in facts if one.id not in quarantined]
    diagnoses += outlier_diagnoses(readable, prepared=True)
    diagnoses += split_diagnoses([entry for entry in entries if entry.id not in quarantined], readable)
    diagnoses += report_diagnoses(folder)
    return Checkup(PREPARED, entries, tuple(facts), _in_order(diagnoses, entries), quarantined, changes)


def _examine(
    function: Callable[[Subject], Examined],
    subjects: Sequence[Subject],
    jobs: int,
    timeout: float,
    progress: Progress | None,
) -> tuple[list[Facts], list[Diagnosis]]:
    """Facts and diagnoses of every subject, in their order whatever the order in which workers end."""
    results: dict[int, Examined] = {}
    for number, result in run_tasks(function, subjects, jobs, timeout):
        if isinstance(result, Lost):
            lost = error(result.code, result.reason, "convert it with another tool, or take it out")
            subject = subjects[number]
            name = shown_path(subject) if isinstance(subject, Source) else subject.path
            result = Examined(diagnoses=(lost.about(subject.id, name),))
        results[number] = result
        if progress is not None:
            progress(len(results), len(subjects))
    examined = [results[number] for number in sorted(results)]
    facts = [facts for one in examined for facts in one.facts]
    return facts, [diagnosis for one in examined for diagnosis in one.diagnoses]


def _in_order(diagnoses: Sequence[Diagnosis], subjects: Sequence[Source | Entry]) -> tuple[Diagnosis, ...]:
    place = {subject.id: number for number, subject in enumerate(subjects)}
    ranked = sorted(diagnoses, key=lambda one: (one.severity != ERROR, place.get(one.id, len(place))))
    return tuple(ranked)
