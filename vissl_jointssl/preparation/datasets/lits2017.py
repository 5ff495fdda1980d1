"""LiTS, the Liver Tumor Segmentation Benchmark: abdominal CT of seven hospitals (Bilic et al., MedIA 2023).

Its home ships 131 scans with labels. The paper pre-trains on 111 and does not say which. So many are left without 28 to
47, most of which are the public 3D-IRCADb-01: LiTS ships them with the identity as affine, so nobody knows their voxel
size and orientation. Here those 20 test and the others train. The challenge's 70 test scans, whose labels it keeps, are
in the test split too. The scans of MSD's task 3 and of MOTS's liver set are the same ones.
"""

from __future__ import annotations

from pathlib import Path

from vissl_jointssl.preparation.data_set import DataSet
from vissl_jointssl.preparation.recipe import Recipe, Source
from vissl_jointssl.preparation.sources.case_files import by_case, check_pairs, find_any, look_for
from vissl_jointssl.preparation.splitting import hash_patient

_INSIDE = "media/nas/01_Datasets/CT/LITS/"  # how the two archives of training scans unpack
_WITHOUT_AFFINE = range(28, 48)
_FOLDERS = ("", "*/", f"{_INSIDE}*/", f"*/{_INSIDE}*/")


def lits2017(root: Path) -> Recipe:
    """Scans with liver and tumour; a folder of files, of the batches, or of the unpacked archives."""
    scans = by_case(find_any(root, _patterns("volume")), r"(volume-\d+)\.nii(?:\.gz)?")
    maps = by_case(look_for(root, _patterns("segmentation")), r"(segmentation-\d+)\.nii(?:\.gz)?")
    maps = {case.replace("segmentation", "volume"): path for case, path in maps.items()}
    check_pairs(scans, maps)
    unlabelled = by_case(look_for(root, _patterns("test-volume")), r"(test-volume-\d+)\.nii(?:\.gz)?")
    sources = []
    for case, path in {**scans, **unlabelled}.items():
        patient, label_path = hash_patient(f"lits2017/{case}"), maps.get(case)
        tests = label_path is None or int(case.removeprefix("volume-")) in _WITHOUT_AFFINE
        sources.append(
            Source(
                id=patient,
                path=path.relative_to(root).as_posix(),
                patient=patient,
                modality="CT",
                split="test" if tests else "train",
                label_path=None if label_path is None else label_path.relative_to(root).as_posix(),
                labels_by_voxel=True,  # some label maps have the identity as affine, and their scan has not
            )
        )
    return Recipe("lits2017", root, tuple(sources), label_names=("liver", "liver tumour"))


def _patterns(name: str) -> list[str]:
    return [f"{folder}{name}-*.nii*" for folder in _FOLDERS]


DATA_SETS = (
    DataSet(
        name="lits2017",
        title="LiTS 2017",
        home="https://competitions.codalab.org/competitions/17094",
        licence="CC BY-NC-ND 4.0; registration",
        contents="131 abdominal CT with labels, 70 without",
        count=201,
        modality="CT",
        labels="liver 1, liver tumour 2",
        layout="Training Batch 1/volume-0.nii and segmentation-0.nii  ...  Training Batch 2/  "
        "LITS-Challenge-Test-Data/test-volume-0.nii  ...",
        recipe=lits2017,
    ),
)
