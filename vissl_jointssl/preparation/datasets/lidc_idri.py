"""LIDC-IDRI: chest CT of 1,010 patients, some with X-rays, for pre-training (Armato et al., Medical Physics 2011).

The paper trains on 1,008 of the 1,018 CT and does not name them; this is all of them. A series of fewer than ten files
is one of the 290 series of X-rays and stays out; every CT has at least 65 slices. The nodules, in XML, are not read.
LUNA16 is made of 888 of these scans, so neither may test what the other trained.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

from vissl_jointssl.preparation.data_set import DataSet, WrongFolder
from vissl_jointssl.preparation.errors import printable
from vissl_jointssl.preparation.recipe import Recipe, Source
from vissl_jointssl.preparation.sources.case_files import find_any, refuse
from vissl_jointssl.preparation.splitting import hash_patient

_PATIENT = "LIDC-IDRI-[0-9][0-9][0-9][0-9]"
_FEWEST_SLICES = 65
_X_RAYS = 9  # files of the largest series of X-rays; 569 lie in 290 series

_log = logging.getLogger(__name__)


def lidc_idri(root: Path) -> Recipe:
    """The recipe, over `LIDC-IDRI/`, the folder of patients, or one up to two levels above it. No split is fixed.

    Ids are hashed, for the folders are called by the patient ids of the headers.

    Raises:
        WrongFolder: If no folder is called as a patient is, or none of them holds a CT.
        PreparationError: If a series is too short for a CT and too long for X-rays, with the paths.
    """
    sources, short, x_rays = [], [], 0
    for patient in find_any(root, [f"{above}{_PATIENT}" for above in ("", "*/", "*/*/")]):
        for name, folders, files in os.walk(patient):
            folders.sort()
            slices = sum(file.lower().endswith(".dcm") and not file.startswith(".") for file in files)
            series = Path(name).relative_to(root).as_posix()
            if slices >= _FEWEST_SLICES:
                below = Path(name).relative_to(patient.parent).as_posix()
                sources.append(Source(hash_patient(below), series, hash_patient(patient.name), modality="CT"))
            elif slices > _X_RAYS:
                short.append(f"{printable(series)}: {slices} slices, and every CT has {_FEWEST_SLICES} or more")
            elif slices:
                x_rays += 1
    refuse(short, "copy these series again")
    if not sources:
        raise WrongFolder(root, [f"{_PATIENT}/*/*/ with {_FEWEST_SLICES} .dcm files or more"])
    _log.info("lidc_idri: %d CT; %d series of X-rays are left out", len(sources), x_rays)
    return Recipe("lidc_idri", root, tuple(sources))


DATA_SETS = (
    DataSet(
        name="lidc_idri",
        title="LIDC-IDRI",
        home="https://doi.org/10.7937/K9/TCIA.2015.LO9QL9SX",
        licence="CC BY 3.0; cite Armato et al. 2011 and the archive (Clark et al. 2013)",
        contents="1,018 chest CT of 1,010 patients",
        count=1018,
        modality="CT",
        labels="none",
        layout="LIDC-IDRI/LIDC-IDRI-0001/01-01-2000-30178/3000566.000000-03192/1-001.dcm  ...\n"
        "(older copies call the two inner folders by their UIDs)",
        recipe=lidc_idri,
    ),
)
