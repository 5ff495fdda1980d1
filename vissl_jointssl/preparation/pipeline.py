"""Preparation as a whole: every source of a recipe, then the manifest."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from vissl_jointssl.manifest import Entry, Manifest, ManifestError, read_manifest, write_manifest
from vissl_jointssl.preparation.cache.folder_lock import only_run_in
from vissl_jointssl.preparation.cache.quarantine_release import release_changed
from vissl_jointssl.preparation.cache.report import REPORT_FILE, write_report
from vissl_jointssl.preparation.cache.sweeping import keep_only, remove_left_overs
from vissl_jointssl.preparation.cache.target_checks import check_owner, check_place
from vissl_jointssl.preparation.cache.writing import Cache, Prepared, TargetError
from vissl_jointssl.preparation.errors import PreparationError, ReadError, printable
from vissl_jointssl.preparation.recipe import Options, Recipe, Source
from vissl_jointssl.preparation.run_log import log_notes, log_summary
from vissl_jointssl.preparation.sources.folder_recipe import check_patients, folder_recipe
from vissl_jointssl.preparation.splitting import split_of
from vissl_jointssl.preparation.workers import Lost, run_tasks, usable_cores

Progress = Callable[[int, int, str], None]  # sources done, sources in all, path of the one done last

TIMEOUT = 900.0  # seconds for one source: the largest CTs take one or two minutes

_log = logging.getLogger(__name__)


def prepare(
    recipe: Recipe,
    out_dir: Path | str,
    progress: Progress | None = None,
    *,
    keep_going: bool = False,
    jobs: int | None = None,
    timeout: float = TIMEOUT,
) -> Manifest:
    """Read, normalise and write every source, and last the manifest.

    What an earlier run finished is kept as long as its files and options are the same, so a killed run goes on where
    it stopped and a second run changes nothing. Sources are read and written in worker processes; the result does not
    depend on how many.

    Args:
        recipe: What to prepare.
        out_dir: Where arrays and `manifest.csv` go.
        progress: Called at first, and after each source in the order in which they end.
        keep_going: Leave faulty files out and write the manifest all the same; otherwise the sound ones are kept for
            the next run, but there is no manifest.
        jobs: Worker processes; None takes a core each.
        timeout: Seconds after which the reader of one source is ended.

    Raises:
        PreparationError: If the recipe is faulty, a file is and `keep_going` is not set (every faulty file is listed),
            nothing is left, `out_dir` cannot be written to or holds something else, or another run is at work there.
    """
    recipe.check()
    if (jobs is not None and jobs < 1) or not timeout > 0:
        raise PreparationError(f"jobs is {jobs} and timeout {timeout} s, expected at least 1 and more than 0")
    folder, root = Path(out_dir), Path(recipe.root)
    check_place(folder, root, recipe.sources)
    try:
        with only_run_in(folder):
            cache = Cache(folder, root)
            remove_left_overs(folder)
            check_owner(folder, recipe)
            results = _results(cache, recipe, progress, jobs or usable_cores(), timeout)
            manifest = _finish(cache, recipe, results, keep_going)
            remove_left_overs(folder)
    except (OSError, TargetError) as error:
        reason = (error.strerror if isinstance(error, OSError) else str(error)) or type(error).__name__
        raise PreparationError(
            f"{printable(folder)}: cannot be written to ({reason}). Next: check its permissions and free space, then "
            "run again; what was finished is kept"
        ) from None
    log_summary(recipe, manifest)
    return manifest


def prepare_folder(
    folder: Path | str,
    out_dir: Path | str,
    *,
    modality: str | None = None,
    spacing: float | tuple[float, float, float] | None = None,
    slice_axis: str = "axial",
    validation_share: float = 0.0,
    test_share: float = 0.0,
    seed: int = 0,
    keep_going: bool = False,
    progress: Progress | None = None,
    jobs: int | None = None,
    timeout: float = TIMEOUT,
    **options: object,
) -> Manifest:
    """Prepare every scan and image under a folder, with nothing known but what the files say.

    Args:
        folder: Holds scans and images, or folders of DICOM series, at any depth; see `finding`.
        out_dir: Where arrays and `manifest.csv` go.
        modality: "CT", "MR", ...; None asks each file or its values.
        spacing: Resample to this voxel size in mm, one for every axis or `(F, H, W)`; None keeps the scans' own.
        slice_axis: "axial", "coronal" or "sagittal".
        validation_share: Share of patients that validate.
        test_share: Share of patients that test.
        seed: Of the draw.
        keep_going: See `prepare`.
        progress: See `prepare`.
        jobs: See `prepare`.
        timeout: See `prepare`.
        options: Further fields of `recipe.Options`.

    Raises:
        PreparationError: As in `prepare`; or if the folder does not exist, holds no scan, or cannot be split because
            all of it counts as one patient.
    """
    sizes = (spacing,) * 3 if isinstance(spacing, int | float) else spacing
    try:
        chosen = Options(slice_axis=slice_axis, spacing=sizes, **options)  # type: ignore[arg-type]
    except TypeError:
        unknown = sorted(set(options) - set(Options.__dataclass_fields__))
        raise PreparationError(f"no option is called {', '.join(unknown)}; see recipe.Options") from None
    recipe = replace(
        folder_recipe(folder, out_dir, modality),
        options=chosen,
        validation_share=validation_share,
        test_share=test_share,
        seed=seed,
    )
    check_patients(recipe)
    return prepare(recipe, out_dir, progress, keep_going=keep_going, jobs=jobs, timeout=timeout)


def _results(
    cache: Cache, recipe: Recipe, progress: Progress | None, jobs: int, timeout: float
) -> list[Prepared | ReadError]:
    """What became of each source, in the recipe's order."""
    show = progress or (lambda done, total, path: None)
    total = len(recipe.sources)
    results: dict[int, Prepared | ReadError] = {}
    show(0, total, "")
    todo = []
    for number, source in enumerate(recipe.sources):
        found = cache.find(source, recipe.options)
        if found is None:
            todo.append(number)
            continue
        results[number] = found
        show(len(results), total, source.path)
    tasks = [(cache, recipe.sources[number], recipe.options) for number in todo]
    with closing(run_tasks(_renew, tasks, jobs, timeout)) as ended:
        for position, result in ended:
            number = todo[position]
            if isinstance(result, TargetError):
                raise result
            source = recipe.sources[number]
            results[number] = _lost(cache.root / source.path, result) if isinstance(result, Lost) else result
            show(len(results), total, source.path)
    return [results[number] for number in range(total)]


def _renew(task: tuple[Cache, Source, Options]) -> Prepared | ReadError | TargetError:
    """What a worker does."""
    cache, source, options = task
    try:
        return cache.renew(source, options)
    except (ReadError, TargetError) as error:
        return error


def _lost(path: Path, lost: Lost) -> ReadError:
    if lost.code == "timeout":
        return ReadError(path, lost.reason, "give it more (--timeout), or take the file out", "timeout")
    return ReadError(path, lost.reason, "copy it again, or take it out; it may need more memory (--jobs 1)", lost.code)


def _finish(cache: Cache, recipe: Recipe, results: Sequence[Prepared | ReadError], keep_going: bool) -> Manifest:
    """Report, manifest, and then what neither names any more."""
    done = [(source, one) for source, one in zip(recipe.sources, results, strict=True) if isinstance(one, Prepared)]
    faults = {source.id: one for source, one in zip(recipe.sources, results, strict=True) if isinstance(one, ReadError)}
    entries = _entries(recipe, done)
    _refuse(faults, entries, keep_going)
    log_notes(cache.root, done)
    write_report(cache.folder / REPORT_FILE, recipe, entries, faults, {source.id: one.notes for source, one in done})
    manifest = _write_if_changed(cache.folder / "manifest.csv", entries)
    files = {file for entry in entries for file in entry.files}
    for source in recipe.sources:
        if source.id in faults:
            files |= cache.recorded_files(source)
    gone = keep_only(cache.folder, files, {source.id for source in recipe.sources})
    if gone:
        _log.info("%s: removed %d files that no row names any more", recipe.name, gone)
    return manifest


def _entries(recipe: Recipe, done: Sequence[tuple[Source, Prepared]]) -> list[Entry]:
    fixed = {source.patient: source.split for source in recipe.sources if source.split is not None}
    entries = []
    for source, prepared in done:
        for row in prepared.rows:
            patient = row.patient or source.patient
            drawn = split_of(patient, recipe.validation_share, recipe.test_share, recipe.seed)
            entries.append(replace(row, patient=patient, split=source.split or fixed.get(patient) or drawn))
    return entries


def _refuse(faults: Mapping[str, ReadError], entries: Sequence[Entry], keep_going: bool) -> None:
    count = "1 file" if len(faults) == 1 else f"{len(faults)} files"
    if faults and not keep_going:
        raise PreparationError(
            f"{count} cannot be prepared and no manifest was written; the others are done and kept. Next: mend or "
            "remove these and run again, or run with --keep-going to leave them out:",
            list(faults.values()),
        )
    if not entries:
        raise PreparationError("nothing could be prepared:", list(faults.values()))
    for id, fault in faults.items():
        _log.warning("left out (%s, %s): %s", id, fault.code, fault)


def _write_if_changed(path: Path, entries: Sequence[Entry]) -> Manifest:
    """Leave an equal manifest as it is, time of change included: caches that depend on it stay valid."""
    before: tuple[Entry, ...] = ()
    if path.is_file():
        try:
            present = read_manifest(path, with_quarantined=True)
        except ManifestError:
            present = Manifest(path, ())
        if present.entries == tuple(entries):
            return present
        before = present.entries
    manifest = write_manifest(path, entries)
    released = release_changed(path.parent, before, entries)
    if released:
        _log.info(
            "%d rows leave the quarantine, as they were prepared anew or are gone: %s; run `jointssl doctor` again",
            len(released),
            ", ".join(released[:10]) + (", ..." if len(released) > 10 else ""),
        )
    return manifest
