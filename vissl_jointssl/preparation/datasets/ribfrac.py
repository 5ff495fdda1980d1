"""RibFrac: chest CT with broken ribs (Jin et al., EBioMedicine 2020), for pre-training.

The paper trains on the 420 of the training set, "train" here; the tuning set is "val" and the test set, whose labels
the challenge keeps, "test". A label map numbers the fractures of a scan from 1. Of which kind each is stands in
`ribfrac-*-info*.csv`, -1 where nobody could tell; here all are "fracture" and the tables are not read.
"""

from __future__ import annotations

from pathlib import Path

from vissl_jointssl.preparation.data_set import DataSet
from vissl_jointssl.preparation.errors import printable
from vissl_jointssl.preparation.recipe import Recipe, Source
from vissl_jointssl.preparation.sources.case_files import by_case, find_any, look_for, refuse
from vissl_jointssl.preparation.splitting import hash_patient

_LAST_TRAINING, _LAST_TUNING, _LAST = 420, 500, 660
_FRACTURES = dict.fromkeys(range(1, 256), 1)  # the scan with the most has 36


def ribfrac(root: Path) -> Recipe:
    """The recipe, over the folder that the archives were unpacked to; files are found at any depth.

    The number in a file's name tells its set, so it does not matter what people call the folders of the archives.

    Raises:
        WrongFolder: If there is no scan.
        PreparationError: If a number is there twice or the set does not have it, a label map has no scan, or a scan of
            the training or tuning set no label map, with the paths.
    """
    scans = by_case(find_any(root, ["**/RibFrac*-image.nii*"]), r"RibFrac(\d+)-image\.nii(?:\.gz)?")
    labels = by_case(look_for(root, ["**/RibFrac*-label.nii*"]), r"RibFrac(\d+)-label\.nii(?:\.gz)?")
    faults = []
    for case, path in scans.items():
        if not 1 <= int(case) <= _LAST:
            faults.append(f"{printable(path)}: scans are numbered from 1 to {_LAST}")
        elif int(case) <= _LAST_TUNING and case not in labels:
            faults.append(f"{printable(path)}: its label map is not in the folder")
    faults += [
        f"{printable(path)}: its scan is not in the folder" for case, path in labels.items() if case not in scans
    ]
    refuse(faults, "give the folder that images and labels were unpacked to")
    return Recipe(
        name="ribfrac",
        root=root,
        sources=tuple(
            Source(
                id=f"RibFrac{case}",
                path=scans[case].relative_to(root).as_posix(),
                patient=hash_patient(f"ribfrac/{case}"),
                modality="CT",
                split="train" if int(case) <= _LAST_TRAINING else "val" if int(case) <= _LAST_TUNING else "test",
                label_path=labels[case].relative_to(root).as_posix() if case in labels else None,
                label_groups=_FRACTURES if case in labels else None,
            )
            for case in sorted(scans, key=int)
        ),
        label_names=("fracture",),
    )


DATA_SETS = (
    DataSet(
        name="ribfrac",
        title="RibFrac",
        home="https://ribfrac.grand-challenge.org (Zenodo records 3893508, 3893498, 3893496 and 3993380)",
        licence="CC BY-NC 4.0; cite Jin et al. 2020",
        contents="500 chest CT with label maps, 160 without",
        count=_LAST,
        modality="CT",
        labels="fracture",
        layout="ribfrac-train-images-1/Part1/RibFrac1-image.nii.gz ...  ribfrac-train-images-2/Part2/ ...\n"
        "ribfrac-train-labels-1/Part1/RibFrac1-label.nii.gz ...  ribfrac-train-labels-2/Part2/ ...\n"
        "ribfrac-val-images/  ribfrac-val-labels/  ribfrac-test-images/RibFrac501-image.nii.gz ...",
        recipe=ribfrac,
    ),
)
