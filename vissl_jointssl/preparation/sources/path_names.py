"""What the path of a scan tells where nothing else does: its name without a suffix, and whose scan it is."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from vissl_jointssl.preparation.decoding.dicom import DICOM_SUFFIXES
from vissl_jointssl.preparation.decoding.images import IMAGE_SUFFIXES
from vissl_jointssl.preparation.decoding.itk import ITK_SUFFIXES
from vissl_jointssl.preparation.decoding.nifti import NIFTI_SUFFIXES

ARRAY_SUFFIXES = (".npy", ".npz")
# The longest first, for .nii.gz ends in .gz.
SUFFIXES = sorted((*NIFTI_SUFFIXES, *ITK_SUFFIXES, *IMAGE_SUFFIXES, *ARRAY_SUFFIXES, *DICOM_SUFFIXES), key=len)[::-1]

# Folders that sort scans by split, format, modality or class, and therefore name no patient.
_SPLITS = "train training val valid validation test testing"
_FORMATS = "nifti nii dicom dcm nrrd mha png jpg jpeg tif tiff npy raw rawdata raw_data"
_MODALITIES = "ct mr mri pt pet cr dx xr xray x-ray us mg"
_CLASSES = (
    "hgg lgg normal abnormal healthy control controls positive negative benign malignant pneumonia covid covid-19"
)
_COLLECTIONS = "data dataset patients subjects cases scans scan volumes volume images image imgs img"
SORTING_FOLDERS = frozenset(" ".join((_SPLITS, _FORMATS, _MODALITIES, _CLASSES, _COLLECTIONS)).split())
NNUNET_FOLDER = re.compile(r"images(tr|ts|va|val)", re.IGNORECASE)  # of the Decathlon as well
_PART_OF_STEM = (
    re.compile(r"(sub-[A-Za-z0-9]+)_.*", re.DOTALL),  # BIDS
    re.compile(r"(.+?)[-_](?:frame|slice)[-_]?[0-9]+", re.IGNORECASE | re.DOTALL),
)


def stem_of(name: str) -> str:
    """A file's name without its suffix, both parts of .nii.gz; the name where the suffix is none of ours."""
    lower = name.lower()
    return next((name[: -len(suffix)] for suffix in SUFFIXES if lower.endswith(suffix) and lower != suffix), name)


def patient_of(path: PurePosixPath, name: str | None = None) -> str:
    """Whose scan it is, by the layout of folders, in clear.

    The topmost folder, passing over those that only sort, such as images, train or CT (`SORTING_FOLDERS`), and all
    down to `imagesTr`, which lies in a folder of a data set; where there is no other, the file's stem. Of one such as
    `sub-01_T1w` (BIDS) only `sub-01` counts, of `a_frame_7` or `a_slice_7` only `a`.

    Args:
        path: Of the file, relative to the folder that was given.
        name: In place of the stem, such as "case" of `case_0000.nii.gz` and `case_0001.nii.gz`; of a series of DICOM
            files, the folder that holds them.
    """
    folders = path.parent.parts
    below = max(
        (number for number, folder in enumerate(folders, start=1) if NNUNET_FOLDER.fullmatch(folder)), default=0
    )
    for folder in folders[below:]:
        if folder.lower() not in SORTING_FOLDERS:
            return folder
    stem = stem_of(path.name) if name is None else name
    matches = (pattern.fullmatch(stem) for pattern in _PART_OF_STEM)
    return next((match[1] for match in matches if match is not None), stem)
