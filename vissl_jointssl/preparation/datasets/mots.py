"""MOTS: seven sets of abdominal CT, each with one organ and its tumours labelled (Zhang et al., DoDNet, CVPR 2021).

It is had from two homes: the 210 labelled cases of KiTS19 are set 1, those of six Decathlon tasks the others. The split
is that of DoDNet's lists, 920 for training and 235 for test. The paper pre-trains on 936 and does not say which.
Give the files as their homes ship them: DoDNet's re_spacing.py exchanges axes without telling the affine.

Numbers here are those of `_ORGANS`. 0 is background or what the scan's own set does not label.
"""

from __future__ import annotations

from pathlib import Path

from vissl_jointssl.preparation.data_set import DataSet, WrongFolder
from vissl_jointssl.preparation.recipe import Recipe, Source
from vissl_jointssl.preparation.sources.case_files import by_case, check_pairs, look_for
from vissl_jointssl.preparation.splitting import hash_patient

_ABOVE = ("liver", "liver tumour", "kidney", "kidney tumour", "hepatic vessel", "hepatic vessel tumour")
_ORGANS = (*_ABOVE, "pancreas", "pancreas tumour", "colon tumour", "lung tumour", "spleen")
_GROUPS = {"0Liver": {1: 1, 2: 2}, "1Kidney": {1: 3, 2: 4}, "2HepaticVessel": {1: 5, 2: 6}, "3Pancreas": {1: 7, 2: 8}}
_GROUPS |= {"4Colon": {1: 9}, "5Lung": {1: 10}, "6Spleen": {1: 11}}
# DoDNet's dataset/list/MOTS/MOTS_test.txt: every fifth case of a set in the order of its names.
TEST_CASES = {
    "0Liver": " ".join(sorted(str(number) for number in range(131))[::5]),
    "1Kidney": " ".join(f"{number:05}" for number in range(0, 210, 5)),
    "2HepaticVessel": "001 008 018 025 030 040 050 058 066 072 080 085 090 096 103 112 119 127 133 140 146 154 161 "
    "167 175 183 192 197 203 210 217 223 230 236 244 256 265 271 279 285 291 299 308 320 325 333 341 350 361 369 375 "
    "384 391 400 407 416 424 432 440 445 455",
    "3Pancreas": "001 012 021 032 042 049 056 067 075 083 089 095 101 106 113 122 129 138 149 160 170 179 186 196 201 "
    "210 215 224 229 236 244 254 261 267 275 280 287 293 298 303 310 316 325 330 339 346 354 360 366 374 379 387 393 "
    "401 409 414 421",
    "4Colon": "001 009 024 029 036 042 053 065 075 088 096 103 111 118 126 134 140 145 157 164 171 185 196 206 214 219",
    "5Lung": "001 009 018 026 033 041 046 053 059 066 074 081 093",
    "6Spleen": "10 17 21 27 32 44 52 60 9",
}


def mots(root: Path) -> Recipe:
    """The labelled scans; give the folder of the seven sets, or the one above."""
    sources = []
    for name, groups in _GROUPS.items():
        images, maps = _files(root, name, "imagesTr", "imaging"), _files(root, name, "labelsTr", "segmentation")
        if name == "1Kidney":  # get_imaging.py of KiTS19 fetches its test scans, 210 to 299, as well
            images = {case: path for case, path in images.items() if int(case) < 210}
        check_pairs(images, maps)
        for case, image in images.items():
            split = "test" if case in TEST_CASES[name].split() else "train"
            patient = hash_patient(f"mots/{name}/{case}")
            path, label_path = (file.relative_to(root).as_posix() for file in (image, maps[case]))
            sources.append(Source(patient, path, patient, "volume", "CT", split, label_path, groups))
    if not sources:
        raise WrongFolder(root, [f"{name}/" for name in _GROUPS])
    return Recipe("mots", root, tuple(sources), label_names=_ORGANS)


def _files(root: Path, name: str, folder: str, file: str) -> dict[str, Path]:
    below, case = f"{folder}/*.nii.gz", r"[a-z]+_(\d+)\.nii\.gz"
    if name == "1Kidney":
        below, case = f"origin/case_*/{file}.nii.gz", rf"case_(\d+)/{file}\.nii\.gz"
    return by_case(look_for(root, (f"{name}/{below}", f"*/{name}/{below}")), case)


DATA_SETS = (
    DataSet(
        name="mots",
        title="MOTS",
        home="http://medicaldecathlon.com (tasks 3 and 6 to 10) and https://github.com/neheller/kits19",
        licence="CC BY-SA 4.0 (Decathlon), CC BY-NC-SA (KiTS19)",
        contents="1,155 abdominal CT, each with the labels of one of seven sets",
        count=1155,
        modality="CT",
        labels="11 organs and tumours, in each scan those of one set",
        layout="0Liver/imagesTr/liver_0.nii.gz and labelsTr/liver_0.nii.gz  1Kidney/origin/case_00000/imaging.nii.gz "
        "and segmentation.nii.gz  2HepaticVessel/  3Pancreas/  4Colon/  5Lung/  6Spleen/  (dataset/load_mots.sh of "
        "https://github.com/jianpengz/DoDNet gets and names them)",
        recipe=mots,
    ),
)
