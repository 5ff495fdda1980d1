"""LUNA16: chest CT of LIDC-IDRI with slices up to 2.5 mm, and candidates for nodules (Setio et al., MedIA 2017).

The paper pre-trains on 623 scans, which is what subsets 0 to 6 hold, and classifies the 754,975 candidates of
`candidates_V2.csv`. Its Table 8 counts 377,138, 152,362 and 225,475 for training, validation and test: subsets 0 to 4,
5 to 6 and 7 to 9, as Models Genesis (Zhou et al., MICCAI 2019) splits them. All of them take 99 GB at a byte a voxel.

A scan counts as a patient, for LUNA16 names scans by their series alone: LIDC-IDRI has 1,018 scans of 1,010 patients,
so at most eight patients can be here twice.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

from vissl_jointssl.preparation.data_set import DataSet
from vissl_jointssl.preparation.errors import printable
from vissl_jointssl.preparation.recipe import Options, Recipe, Source
from vissl_jointssl.preparation.sources.candidate_table import read_candidates
from vissl_jointssl.preparation.sources.case_files import by_case, find_any, refuse
from vissl_jointssl.preparation.splitting import hash_patient

_SPLITS = ("train",) * 7 + ("test",) * 3  # by subset
_CANDIDATE_SPLITS = ("train",) * 5 + ("val",) * 2 + ("test",) * 3
_TABLE = "candidates_V2.csv"
_log = logging.getLogger(__name__)


def luna2016(root: Path) -> Recipe:
    """Every scan, without labels."""
    return Recipe("luna2016", root, tuple(_scans(root, _SPLITS).values()))


def luna2016_v2(root: Path) -> Recipe:
    """A patch around every candidate, with its class."""
    scans = _scans(root, _CANDIDATE_SPLITS)
    tables = by_case(find_any(root, [above + _TABLE for above in ("", "*/", "*/*/")]), f"({_TABLE})")
    patches = read_candidates(tables[_TABLE])
    empty = [
        f"{printable(source.path)}: no candidate lies in it" for uid, source in scans.items() if uid not in patches
    ]
    refuse(empty, f"get {_TABLE} again, or take these scans out")
    if others := len(patches.keys() - scans.keys()):
        _log.warning("luna2016_v2: candidates of %d scans are left out, as the scans are not in the folder", others)
    sources = tuple(replace(source, patches=patches[uid]) for uid, source in scans.items())
    options = Options(spacing=(1.0, 1.0, 1.0), patch_size=(32, 64, 64), stored_type="uint8")
    return Recipe("luna2016_v2", root, sources, options, ("no nodule", "nodule"))


def _scans(root: Path, splits: tuple[str, ...]) -> dict[str, Source]:
    """By series."""
    headers = by_case(find_any(root, ("subset[0-9]/*.mhd", "*/subset[0-9]/*.mhd")), r"([^/]+)\.mhd")
    alone = [path for path in headers.values() if not path.with_suffix(".raw").is_file()]
    refuse([f"{printable(path)}: its voxels, a .raw file, are not beside it" for path in alone], "unpack it again")
    sources = {}
    for uid, path in headers.items():
        patient, split = hash_patient(f"luna2016/{uid}"), splits[int(path.parent.name[-1])]
        sources[uid] = Source(patient, path.relative_to(root).as_posix(), patient, modality="CT", split=split)
    return sources


_LUNA = DataSet(
    name="luna2016",
    title="LUNA16",
    home="https://luna16.grand-challenge.org (Zenodo records 3723295 and 4121926)",
    licence="CC BY 4.0; of LIDC-IDRI, where the scans are from, CC BY 3.0",
    contents="888 chest CT",
    count=888,
    modality="CT",
    labels="none",
    layout=f"subset0/*.mhd and *.raw  ...  subset9/  {_TABLE} (for luna2016_v2)",
    recipe=luna2016,
)
_CANDIDATES = "754,975 candidates in 888 chest CT, 32 x 64 x 64 mm around each"
_V2 = replace(_LUNA, name="luna2016_v2", contents=_CANDIDATES, labels="nodule or not", recipe=luna2016_v2)
DATA_SETS = (_LUNA, _V2)
