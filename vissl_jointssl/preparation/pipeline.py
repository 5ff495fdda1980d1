"""Preparation as a whole: every source of a recipe, then the manifest."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from vissl_jointssl.manifest import Entry, Manifest, ManifestError, read_manifest, write_manifest
from vissl_jointssl.preparation.errors import PreparationError, ReadError
from vissl_jointssl.preparation.finding import find_sources
from vissl_jointssl.preparation.pieces import pieces_of
from vissl_jointssl.preparation.recipe import Options, Recipe
from vissl_jointssl.preparation.splitting import split_of
from vissl_jointssl.preparation.writing import Cache

Progress = Callable[[int, int, str], None]  # sources done, sources in all, path of the one that follows

_log = logging.getLogger(__name__)


def prepare(
    recipe: Recipe, out_dir: Path | str, progress: Progress | None = None, *, keep_going: bool = False
) -> Manifest:
    """Read, normalise and write every source, and last the manifest.

    What an earlier run finished is kept as long as its files and options are the same, so a killed run goes on where
    it stopped and a second run changes nothing.

    Args:
        recipe: What to prepare.
        out_dir: Where arrays and `manifest.csv` go.
        progress: Called before each source and once at the end.
        keep_going: Leave faulty files out and write the manifest all the same; otherwise the sound ones are kept for
            the next run, but there is no manifest.

    Raises:
        PreparationError: If the recipe is faulty, a file is and `keep_going` is not set (every faulty file is listed),
            nothing is left, or `out_dir` cannot be written to.
    """
    recipe.check()
    folder = Path(out_dir)
    cache = Cache(folder, Path(recipe.root))
    entries: list[Entry] = []
    failures: list[ReadError] = []
    outdated: set[str] = set()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for number, source in enumerate(recipe.sources):
            if progress is not None:
                progress(number, len(recipe.sources), source.path)
            try:
                rows = cache.find(source, recipe.options)
                if rows is None:
                    outdated |= cache.recorded_paths(source)
                    rows = cache.store(source, recipe.options, pieces_of(source, cache.root, recipe.options))
            except ReadError as error:
                failures.append(error)
                continue
            split = source.split or split_of(source.patient, recipe.validation_share, recipe.test_share, recipe.seed)
            entries.extend(replace(row, split=split, patient=source.patient) for row in rows)
        if progress is not None:
            progress(len(recipe.sources), len(recipe.sources), "")
        _refuse(failures, entries, keep_going)
        manifest = _write_if_changed(folder / "manifest.csv", entries)
        cache.discard(outdated - {path for entry in entries for path in (entry.path, entry.label_path) if path})
    except OSError as error:
        raise PreparationError(
            f"{folder}: cannot be written to ({error}). Next: check its permissions and free space, then run again; "
            "what was finished is kept"
        ) from error
    _log_summary(recipe, manifest)
    return manifest


def prepare_folder(
    folder: Path | str,
    out_dir: Path | str,
    *,
    modality: str | None = None,
    spacing: float | None = None,
    slice_axis: str = "axial",
    validation_share: float = 0.0,
    test_share: float = 0.0,
    keep_going: bool = False,
    progress: Progress | None = None,
) -> Manifest:
    """Prepare every scan and image under a folder, with nothing known but what the files say.

    Args:
        folder: Holds NIfTI, MetaImage, NRRD, PNG or JPEG files or folders of DICOM series, at any depth. What lies in
            one topmost folder counts as one patient.
        out_dir: Where arrays and `manifest.csv` go.
        modality: "CT", "MR", ...; None asks each file or its values.
        spacing: Resample to this voxel size in mm, the same along each axis; None keeps the scans' own.
        slice_axis: "axial", "coronal" or "sagittal".
        validation_share: Share of patients that validate.
        test_share: Share of patients that test.
        keep_going: See `prepare`.
        progress: See `prepare`.

    Raises:
        PreparationError: As in `prepare`; or if the folder does not exist, holds no scan, or cannot be split because
            all of it counts as one patient.
    """
    folder, out_dir = Path(folder), Path(out_dir)
    if not folder.is_dir():
        raise PreparationError(f"{folder}: is not a folder. Next: give the folder that holds the scans")
    sources = find_sources(folder, modality, skip=out_dir)
    if not sources:
        raise PreparationError(
            f"{folder}: holds no scan. Next: give a folder with .nii, .nii.gz, .mha, .mhd, .nrrd, .png or .jpg files, "
            "or with folders of DICOM files"
        )
    if len(sources) > 1 and validation_share + test_share > 0 and len({source.patient for source in sources}) == 1:
        raise PreparationError(
            f"{folder}: all {len(sources)} scans count as one patient, as they lie in one topmost folder, and patients "
            "are never divided. Next: give the folder in which each patient has a file or folder"
        )
    options = Options(slice_axis=slice_axis, spacing=None if spacing is None else (spacing, spacing, spacing))
    recipe = Recipe(
        folder.name, folder, tuple(sources), options, validation_share=validation_share, test_share=test_share
    )
    return prepare(recipe, out_dir, progress, keep_going=keep_going)


def _refuse(failures: Sequence[ReadError], entries: Sequence[Entry], keep_going: bool) -> None:
    count = "1 file" if len(failures) == 1 else f"{len(failures)} files"
    if failures and not keep_going:
        raise PreparationError(
            f"{count} cannot be prepared and no manifest was written; the others are done and kept. Next: mend or "
            "remove these and run again, or run with --keep-going to leave them out:",
            failures,
        )
    if not entries:
        raise PreparationError("nothing could be prepared:", failures)
    for failure in failures:
        _log.warning("left out: %s", failure)


def _write_if_changed(path: Path, entries: Sequence[Entry]) -> Manifest:
    """Leave an equal manifest as it is, time of change included: caches that depend on it stay valid."""
    if path.is_file():
        try:
            present = read_manifest(path)
        except ManifestError:
            return write_manifest(path, entries)
        if present.entries == tuple(entries):
            return present
    return write_manifest(path, entries)


def _log_summary(recipe: Recipe, manifest: Manifest) -> None:
    kinds = Counter((entry.split, entry.kind) for entry in manifest.entries)
    parts = [f"{count} {kind}{'s' if count > 1 else ''} in {split}" for (split, kind), count in sorted(kinds.items())]
    _log.info("%s: %s; %s", recipe.name, ", ".join(parts), manifest.path)
    classes = Counter((entry.label, entry.split) for entry in manifest.entries if entry.label is not None)
    for (label, split), count in sorted(classes.items()):
        name = recipe.label_names[label] if label < len(recipe.label_names) else "unnamed"
        _log.info("%s: class %d (%s) has %d in %s", recipe.name, label, name, count, split)
