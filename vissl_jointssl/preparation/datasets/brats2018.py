"""BraTS 2018: brain MR of glioma patients in four sequences on one grid (Menze et al., TMI 2015; Bakas et al., 2018).

The paper pre-trains on 4 sequences of 190 patients, 133 and 57, that train and validate its segmentation of the whole
tumour in FLAIR; 95 test. It does not say who, so patients are drawn: a third tests, the same in every word. The 66
patients of the challenge's validation set have no labels and are in the test split.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from vissl_jointssl.preparation.data_set import DataSet
from vissl_jointssl.preparation.recipe import Options, Recipe, Source
from vissl_jointssl.preparation.sources.case_files import by_case, find_any, refuse
from vissl_jointssl.preparation.splitting import hash_patient

SEQUENCES = ("t1", "t1ce", "t2", "flair")
_PATTERNS = [f"{above}Brats18_*/Brats18_*.nii*" for above in ("", "*/", "*/*/")]
_NAME = r"(Brats18_\w+_(?:t1|t1ce|t2|flair|seg))\.nii(?:\.gz)?"
_GROUPS = {1: 1, 2: 2, 4: 3}  # the challenge gave up its label 3
_PARTS = ("necrotic and non-enhancing tumour core", "oedema", "enhancing tumour")
_SHARES = (57 / 285, 95 / 285)  # validation, test


def brats2018(root: Path) -> Recipe:
    """Each sequence of a patient is a volume of its own, without labels."""
    sources = []
    for patient in _patients(root):
        for sequence, path in zip(SEQUENCES, (patient.path, *patient.channel_paths), strict=True):
            sources.append(Source(f"{patient.id}-{sequence}", path, patient.id, modality="MR", split=patient.split))
    return Recipe("brats2018", root, tuple(sources), test_share=_SHARES[1])


def brats2018_channels(root: Path) -> Recipe:
    """A volume of four channels, `SEQUENCES`, and the parts of the tumour."""
    return Recipe("brats2018_channels", root, _patients(root), Options(), _PARTS, *_SHARES)


def brats2018_flair(root: Path) -> Recipe:
    """FLAIR and the whole tumour, as the paper segments it."""
    flair = [replace(source, path=source.channel_paths[-1], channel_paths=()) for source in _patients(root)]
    sources = [replace(source, label_groups=source.label_groups and dict.fromkeys(_GROUPS, 1)) for source in flair]
    return Recipe("brats2018_flair", root, tuple(sources), Options(), ("whole tumour",), *_SHARES)


def _patients(root: Path) -> tuple[Source, ...]:
    files: dict[str, dict[str, str]] = {}
    wanted = set()
    for name, path in by_case(find_any(root, _PATTERNS), _NAME).items():
        patient, _, kind = name.rpartition("_")
        files.setdefault(patient, {})[kind] = path.relative_to(root).as_posix()
        graded = path.absolute().parents[1].name in ("HGG", "LGG")  # the challenge's validation set knows no grades
        wanted |= {(patient, kind) for kind in (*SEQUENCES, "seg")[: 5 if graded else 4]}
    gaps = sorted(f"{patient}_{kind}.nii.gz: is missing" for patient, kind in wanted if kind not in files[patient])
    refuse(gaps, "unpack the archive again")
    sources = []
    for name, found in files.items():
        patient, seg = hash_patient(f"brats2018/{name}"), found.get("seg")
        first, *others = [found[kind] for kind in SEQUENCES]
        source = Source(patient, first, patient, "volume", "MR", None, seg, _GROUPS, channel_paths=tuple(others))
        sources.append(source if seg else replace(source, split="test", label_groups=None))
    return tuple(sources)


_ALL = DataSet(
    name="brats2018",
    title="BraTS 2018",
    home="https://www.med.upenn.edu/sbia/brats2018/data.html",
    licence="for research, after registration; its papers are to be cited",
    contents="4 MR sequences each of 285 patients with labels and 66 without",
    count=351 * 4,
    modality="MR",
    labels="none",
    layout="MICCAI_BraTS_2018_Data_Training/{HGG,LGG}/Brats18_X/Brats18_X_{t1,t1ce,t2,flair,seg}.nii.gz  ...",
    recipe=brats2018,
)
_WHOLE = replace(_ALL, name="brats2018_flair", count=351, labels="whole tumour 1", recipe=brats2018_flair)
_CHANNELS = replace(_WHOLE, name="brats2018_channels", labels="3 parts of the tumour", recipe=brats2018_channels)
DATA_SETS = (_ALL, _CHANNELS, _WHOLE)
