"""The sources in DICOM files that lie in one folder: a source for each series, X-ray and multi-frame file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from vissl_jointssl.preparation.decoding.dicom_groups import SeriesGroup, grouped_headers
from vissl_jointssl.preparation.recipe import Source
from vissl_jointssl.preparation.sources.path_names import patient_of
from vissl_jointssl.preparation.splitting import hash_patient


def dicom_sources(root: Path, files: Sequence[Path], modality: str | None = None) -> tuple[list[Source], Counter[str]]:
    """Sort the DICOM files of one folder into sources.

    A series names its files, so that it stays the same source whatever else comes into the folder; its id is a hash
    of its first file's path. A damaged file is taken for a slice of the only series there is, or else for a scan of
    its own: either way its reader tells what is wrong with it. So is a file that ends within its header, if there is
    one series; elsewhere it shows nothing.

    Args:
        root: Of the recipe.
        files: All DICOM files of one folder at or below the root.
        modality: Of the volumes, where it is known; None asks the files.

    Returns:
        The sources; and the files that show nothing, counted by what they are.
    """
    volumes: list[list[Path]] = []
    images: list[Path] = []
    damaged: list[Path] = []
    cut_short: list[SeriesGroup] = []
    others: Counter[str] = Counter()
    for group, headers in grouped_headers(files):
        if group.form == "volume" and all(header.localizer for header in headers):
            others["DICOM localizers"] += len(group.files)
        elif group.form == "volume":
            volumes.append(list(group.files))
        elif group.form == "image":
            images += group.files
        elif group.damaged or not (headers or _is_directory(group)):
            damaged += group.files
        elif headers and _is_of_images(headers[0].sop_class):
            cut_short.append(group)
        else:
            others[_words(group)] += len(group.files)
    if len(volumes) == 1 and not images:
        volumes[0] = sorted([*volumes[0], *damaged, *(path for group in cut_short for path in group.files)])
    else:
        volumes += [[path] for path in damaged]
        others.update(_words(group) for group in cut_short for _ in group.files)
    found = [_source(root, paths, "volume", modality) for paths in volumes]
    found += [_source(root, [path], "image", None) for path in images]
    return sorted(found, key=lambda source: (source.path, source.id)), others


def _is_of_images(sop_class: str) -> bool:
    """Whether a file of this class has an image unless it is cut short."""
    from pydicom.uid import UID

    return bool(sop_class) and UID(sop_class).name.endswith("Image Storage")


def _words(group: SeriesGroup) -> str:
    return "DICOMDIR" if _is_directory(group) else f"DICOM files ({group.reason})"


def _is_directory(group: SeriesGroup) -> bool:
    return group.files[0].name.upper() == "DICOMDIR"


def _source(root: Path, files: Sequence[Path], kind: str, modality: str | None) -> Source:
    relatives = [PurePosixPath(path.relative_to(root).as_posix()) for path in files]
    first, folder = relatives[0], relatives[0].parent
    id = hash_patient(first.as_posix())
    if len(files) == 1:
        return Source(id, first.as_posix(), hash_patient(patient_of(first)), kind, modality)
    patient = patient_of(first, name=folder.name or root.resolve().name)  # the root may itself be the series
    paths = tuple(relative.as_posix() for relative in relatives)
    return Source(id, folder.as_posix(), hash_patient(patient), kind, modality, files=paths)
