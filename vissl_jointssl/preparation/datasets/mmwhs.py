"""MM-WHS 2017: CT and MR of the heart, of different people, with seven structures (Zhuang and Shen, MedIA 2016).

The files number the structures 500, 600, 420, 550, 205, 820 and 850, in the challenge's order; here they are 1 to 7 in
that order, and 421, a slip in the MR, is 420. The paper segments 3, the left atrium's blood cavity. The split is the
paper's, by the number of the case, the same in CT and MR. The challenge's test scans have no labels and are left out.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

from vissl_jointssl.preparation.data_set import DataSet
from vissl_jointssl.preparation.errors import printable
from vissl_jointssl.preparation.recipe import Recipe, Source
from vissl_jointssl.preparation.sources.case_files import by_case, check_pairs, find_any, look_for, refuse
from vissl_jointssl.preparation.splitting import hash_patient

_SPLITS = dict.fromkeys(range(1001, 1021), "train")
_SPLITS |= dict.fromkeys((1004, 1007, 1013), "val") | dict.fromkeys((1002, 1010, 1012, 1019), "test")
_GROUPS = {500: 1, 600: 2, 420: 3, 421: 3, 550: 4, 205: 5, 820: 6, 850: 7}
_CAVITIES = [f"{side} {chamber}'s blood cavity" for chamber in ("ventricle", "atrium") for side in ("left", "right")]
_STRUCTURES = (*_CAVITIES, "left ventricle's myocardium", "ascending aorta", "pulmonary artery")
_log = logging.getLogger(__name__)


def mmwhs_ct(root: Path) -> Recipe:
    """The 20 labelled CT."""
    return _recipe("mmwhs_ct", root, "ct", "CT")


def mmwhs_mr(root: Path) -> Recipe:
    """The 20 labelled MR."""
    return _recipe("mmwhs_mr", root, "mr", "MR")


def _recipe(name: str, root: Path, prefix: str, modality: str) -> Recipe:
    images = by_case(find_any(root, _patterns(f"{prefix}_train_*_image")), rf"{prefix}_train_(\d+)_image\.nii(?:\.gz)?")
    maps = by_case(look_for(root, _patterns(f"{prefix}_train_*_label")), rf"{prefix}_train_(\d+)_label\.nii(?:\.gz)?")
    check_pairs(images, maps)
    unknown = [
        f"{printable(path)}: no case of the data set" for case, path in images.items() if int(case) not in _SPLITS
    ]
    refuse(unknown, "take it out, for the paper's split does not say where it belongs")
    if unlabelled := len(look_for(root, _patterns(f"{prefix}_test_*_image"))):
        _log.warning("%s: the %d test scans are left out, for they have no labels", name, unlabelled)
    sources = []
    for case, path in images.items():
        patient, split = hash_patient(f"{name}/{case}"), _SPLITS[int(case)]
        relative, label_path = (file.relative_to(root).as_posix() for file in (path, maps[case]))
        source = Source(patient, relative, patient, "volume", modality, split, label_path, _GROUPS)
        sources.append(replace(source, labels_by_voxel=True))  # some label maps have another spacing than their scan
    return Recipe(name, root, tuple(sources), label_names=_STRUCTURES)


def _patterns(name: str) -> list[str]:
    return [f"{above}{name}.nii*" for above in ("", "*/", "*/*/")]


_CT = DataSet(
    name="mmwhs_ct",
    title="MM-WHS 2017, CT",
    home="https://zmiclab.github.io/zxh/0/mmwhs",
    licence="for research, after registration; its papers are to be cited",
    contents="20 labelled heart CT",
    count=20,
    modality="CT",
    labels="7 structures, 3 the left atrium",
    layout="ct_train/ct_train_1001_image.nii.gz and ct_train_1001_label.nii.gz  ...",
    recipe=mmwhs_ct,
)
_MR = replace(_CT, name="mmwhs_mr", title="MM-WHS 2017, MR", contents="20 labelled heart MR", modality="MR")
DATA_SETS = (_CT, replace(_MR, layout=_CT.layout.replace("ct_", "mr_"), recipe=mmwhs_mr))
