"""Which scans and images lie under a folder, for data that has no recipe."""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from vissl_jointssl.preparation.decoding.medmnist import array_names_of, splits_of
from vissl_jointssl.preparation.errors import ReadError, printable
from vissl_jointssl.preparation.recipe import Source
from vissl_jointssl.preparation.sources.dicom_sources import dicom_sources
from vissl_jointssl.preparation.sources.file_kinds import kind_of
from vissl_jointssl.preparation.sources.medmnist_recipe import medmnist_source
from vissl_jointssl.preparation.sources.pairing import Candidate, Case, Pairing, pair
from vissl_jointssl.preparation.sources.path_names import patient_of
from vissl_jointssl.preparation.sources.walking import files_below
from vissl_jointssl.preparation.splitting import hash_patient

_PATHS_SHOWN, _KINDS_SHOWN = 5, 24
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Found:
    """What lies under a folder.

    Attributes:
        sources: In order of path.
        passed_over: How many files or folders are no scans, by what they are, such as ".txt" or "hidden files".
    """

    sources: tuple[Source, ...]
    passed_over: Mapping[str, int]


def find_sources(folder: Path, modality: str | None = None, skip: Path | None = None) -> list[Source]:
    """The sources of `find`."""
    return list(find(folder, modality, skip).sources)


def find(folder: Path, modality: str | None = None, skip: Path | None = None) -> Found:
    """Every scan and image of any format that is read, with its channels and label map, in order of path.

    What a file is, is told by its name; of DICOM, `.npy` and `.npz` files by their headers. DICOM files of one folder
    are sorted into series. Label maps and channels are told by conventions, see `pairing`. The log says what was paired
    and what was passed over, and why.

    The id is a hash of the path, for folders often carry names of patients, and the same whatever else is there. Who
    the patient is, is taken from the layout, see `path_names.patient_of`.

    Args:
        folder: Where to look, with all that is below; links to folders and out of the folder are not followed.
        modality: Of the volumes, where it is known.
        skip: A folder to leave out: the prepared one, should it lie inside.
    """
    files, passed_over = files_below(folder, skip)
    sources: list[Source] = []
    candidates: list[Candidate] = []
    dicom: dict[Path, list[Path]] = defaultdict(list)
    unknown: list[Path] = []
    for path in files:
        kind = kind_of(path)
        relative = PurePosixPath(path.relative_to(folder).as_posix())
        if kind == "dicom":
            dicom[path.parent].append(path)
        elif kind == "samples":
            sources += _samples(path, relative.as_posix(), modality)
        elif kind is not None:
            candidates.append(Candidate(relative, kind))
        else:
            unknown.append(path)
    named_like_slices = {(path.parent, _shape_of(path)) for inside in dicom.values() for path in inside}
    for path in unknown:
        if (path.parent, _shape_of(path)) in named_like_slices:  # IM7 between IM6 and IM8 is a slice that broke
            dicom[path.parent].append(path)
        else:
            passed_over[f"{path.suffix.lower()} files" if path.suffix else "files without suffix"] += 1
    for inside in dicom.values():
        found, others = dicom_sources(folder, inside, modality)
        sources += found
        passed_over.update(others)
    pairing = pair(candidates)
    sources += [_source(case, modality) for case in pairing.cases]
    _report(folder, pairing, passed_over)
    passed_over.update({"label maps": len(pairing.alone) + len(pairing.unclear)})
    return Found(tuple(sorted(sources, key=lambda source: (source.path, source.id))), dict(+passed_over))


def _shape_of(path: Path) -> str:
    return re.sub("[0-9]+", "0", path.name)


def _source(case: Case, modality: str | None) -> Source:
    relative = case.path.as_posix()
    return Source(
        hash_patient(relative),
        relative,
        hash_patient(patient_of(case.path, case.name)),
        case.kind,
        modality if case.kind == "volume" else None,
        label_path=None if case.label_path is None else case.label_path.as_posix(),
        channel_paths=tuple(path.as_posix() for path in case.channel_paths),
    )


def _samples(path: Path, relative: str, modality: str | None) -> list[Source]:
    """The splits of a MedMNIST file; a damaged one as well, whose reader tells what is wrong with it."""
    sources = []
    for split in splits_of(path):
        try:
            sources.append(medmnist_source(path, relative, split, modality))
        except ReadError:
            id = f"{hash_patient(relative)}-{split}"
            arrays = array_names_of(path, split)
            sources.append(Source(id, relative, hash_patient(id), "volume", "OT", split, array_names=arrays))
    return sources


def _report(folder: Path, pairing: Pairing, passed_over: Mapping[str, int]) -> None:
    where = printable(folder)
    labelled = [case for case in pairing.cases if case.label_path is not None]
    if labelled:
        _log.info(
            "%s: %d label maps belong to scans by their names, such as %s to %s",
            where,
            len(labelled),
            printable(str(labelled[0].label_path)),
            printable(str(labelled[0].path)),
        )
    several = [case for case in pairing.cases if case.channel_paths]
    if several:
        count = sum(1 + len(case.channel_paths) for case in several)
        _log.info("%s: %d files are the channels of %d volumes by their names", where, count, len(several))
    if pairing.alone:
        _log.warning("%s: passed over, label maps by name but of no scan here: %s", where, _some(pairing.alone))
    if pairing.unclear:
        _log.warning(
            "%s: passed over, label maps of which several fit one scan or that fit several scans: %s. A CSV with a "
            "column label_path says which is meant",
            where,
            _some(pairing.unclear),
        )
    if passed_over:
        counts = sorted(passed_over.items(), key=lambda item: (-item[1], item[0]))
        more = [f"{len(counts) - _KINDS_SHOWN} other kinds"] if len(counts) > _KINDS_SHOWN else []
        parts = [f"{count} {printable(what)}" for what, count in counts[:_KINDS_SHOWN]] + more
        _log.info("%s: passed over: %s", where, ", ".join(parts))


def _some(paths: Sequence[PurePosixPath]) -> str:
    more = f" and {len(paths) - _PATHS_SHOWN} more" if len(paths) > _PATHS_SHOWN else ""
    return ", ".join(printable(str(path)) for path in paths[:_PATHS_SHOWN]) + more
