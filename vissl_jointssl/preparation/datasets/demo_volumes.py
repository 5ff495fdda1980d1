"""The demo's five scans, which PyPI packages publish; `tools/fetch_demo_volumes.py` gets them.

At 3 mm, cut to regions of 16 x 48 x 48 voxels (48 x 144 x 144 mm), of which each has a class where one organ group is
clearly the largest. Only patient A is labelled in training; B and C, a CT and an MR of other people, test.
"""

from __future__ import annotations

from itertools import chain
from pathlib import Path

from vissl_jointssl.preparation.data_set import DataSet, find_files
from vissl_jointssl.preparation.recipe import Options, Recipe, Source
from vissl_jointssl.preparation.splitting import hash_patient

LABEL_NAMES = ("liver", "other abdominal organs", "bones and muscles")

# TotalSegmentator 2.18.0 numbers organs by its task; map_to_binary.py in its sdist has both tables. Other organs are
# spleen, kidneys, gallbladder, stomach, pancreas, bowel and bladder. Vessels, glands and nerves stay background.
_CT_GROUPS = {5: 1}
_CT_GROUPS |= dict.fromkeys((1, 2, 3, 4, 6, 7, 18, 19, 20, 21), 2)
_CT_GROUPS |= dict.fromkeys(chain(range(25, 51), range(69, 79), range(80, 90), range(91, 118)), 3)
_MR_GROUPS = {5: 1}
_MR_GROUPS |= dict.fromkeys((1, 2, 3, 4, 6, 7, 13, 14, 15, 16), 2)
_MR_GROUPS |= dict.fromkeys(chain((18, 19, 20), range(30, 50)), 3)


def demo_volumes(root: Path | str) -> Recipe:
    """The recipe, over the folder that `tools/fetch_demo_volumes.py` filled."""
    for name in ("abdomen_ct.nii.gz", "liver_ct_dicom"):
        find_files(Path(root), name)

    def source(name: str, path: str, modality: str, split: str, labels: str | None, groups: dict | None) -> Source:
        return Source(name, path, hash_patient(name), "volume", modality, split, labels, groups)

    return Recipe(
        name="demo_volumes",
        root=Path(root),
        sources=(
            source("abdomen_ct", "abdomen_ct.nii.gz", "CT", "train", "abdomen_ct_labels.nii.gz", _CT_GROUPS),
            source("liver_ct", "liver_ct_dicom", "CT", "test", "liver_ct_labels.nii.gz", _CT_GROUPS),
            source("liver_mr", "liver_mr.nii.gz", "MR", "test", "liver_mr_labels.nii.gz", _MR_GROUPS),
            source("aorta_ct", "aorta_ct.nii.gz", "CT", "train", None, None),
            source("brain_mr", "brain_mr.nii.gz", "MR", "train", None, None),
        ),
        options=Options(
            spacing=(3.0, 3.0, 3.0),
            tile_size=(16, 48, 48),
            tile_stride=(16, 32, 32),
            minimum_foreground=0.4,
            region_share=0.04,
            region_margin=1.25,
            ct_window=(-200.0, 300.0),  # HU: fat to contrast-filled vessels; organs differ by tens of HU
        ),
        label_names=LABEL_NAMES,
    )


DATA_SETS = (
    DataSet(
        name="demo_volumes",
        title="Five scans that PyPI packages publish",
        home="https://github.com/wasserth/TotalSegmentator and https://nilearn.github.io, in their Python packages",
        licence="Apache-2.0 (totalsegmentator); unknown for the template in nilearn: research only",
        contents="3 CT and 2 MR of five people",
        count=5,
        modality="CT, MR",
        labels="three organ groups, made by TotalSegmentator's models",
        layout="abdomen_ct.nii.gz  liver_ct_dicom/  liver_mr.nii.gz  ...  (tools/fetch_demo_volumes.py makes it)",
        recipe=demo_volumes,
    ),
)
