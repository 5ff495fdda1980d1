"""Which scans and images lie under a folder, for data that has no recipe."""

from __future__ import annotations

import os
from pathlib import Path

from vissl_jointssl.preparation.decoding.dicom import is_dicom
from vissl_jointssl.preparation.decoding.images import IMAGE_SUFFIXES
from vissl_jointssl.preparation.decoding.itk import ITK_SUFFIXES
from vissl_jointssl.preparation.decoding.nifti import NIFTI_SUFFIXES
from vissl_jointssl.preparation.recipe import Source
from vissl_jointssl.preparation.splitting import hash_patient


def find_sources(folder: Path, modality: str | None = None, skip: Path | None = None) -> list[Source]:
    """Every NIfTI, MetaImage, NRRD, PNG and JPEG file and every folder of DICOM files, in order of path.

    Other files and hidden ones are passed over. The id is a hash of the path, for folders often carry names of
    patients. Who the patient is, is taken from the layout: the topmost folder, or the file where there is none.

    Args:
        folder: Where to look, with all that is below; links to folders are not followed.
        modality: Of the volumes, where it is known.
        skip: A folder to leave out: the prepared one, should it lie inside.
    """
    found: list[Source] = []
    for name, folders, files in os.walk(folder):
        here = Path(name)
        folders[:] = sorted(
            inner
            for inner in folders
            if not inner.startswith(".") and (skip is None or (here / inner).resolve() != skip.resolve())
        )
        visible = sorted(file for file in files if not file.startswith("."))
        others = []
        for file in visible:
            lower = file.lower()
            if lower.endswith(IMAGE_SUFFIXES):
                found.append(_source(folder, here / file, "image", None))
            elif lower.endswith(NIFTI_SUFFIXES + ITK_SUFFIXES):
                found.append(_source(folder, here / file, "volume", modality))
            else:
                others.append(here / file)
        if any(file.name.upper() != "DICOMDIR" and is_dicom(file) for file in others):
            found.append(_source(folder, here, "volume", modality))
    return sorted(found, key=lambda source: source.path)


def _source(folder: Path, path: Path, kind: str, modality: str | None) -> Source:
    relative = path.relative_to(folder)
    top = relative.parts[0] if relative.parts else folder.name  # the folder itself may be the DICOM series
    patient = top if len(relative.parts) > 1 or path.is_dir() else _stem(top)
    return Source(hash_patient(relative.as_posix()), relative.as_posix(), hash_patient(patient), kind, modality)


def _stem(name: str) -> str:
    """File name without its suffix, both parts of .nii.gz: image and volume of one stem are one patient."""
    for suffix in (*reversed(NIFTI_SUFFIXES), *ITK_SUFFIXES, *IMAGE_SUFFIXES):
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name
