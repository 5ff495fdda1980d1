"""VinDr-CXR: chest X-rays with boxes around findings (Nguyen et al., Scientific Data 2022), for detection.

Three readers saw each of the 15,000 training images; their boxes of one class that overlap by more than 20 % are
averaged (`box_merging`). Five agreed upon the boxes of the 3,000 test images, which stay. The paper takes the 4,394
training images with a finding, divides them to 3,075, 440 and 879 and does not say how: `vindr_cxr` draws these shares.
The home's own split of all images is `vindr_cxr_official`. Patients are not published, so each image counts as one. The
longest side becomes 512 pixels and the aspect stays, where the paper has 512 x 512.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from vissl_jointssl.preparation.data_set import DataSet
from vissl_jointssl.preparation.errors import printable
from vissl_jointssl.preparation.recipe import Options, Recipe, Source
from vissl_jointssl.preparation.sources.box_table import read_box_table
from vissl_jointssl.preparation.sources.case_files import by_case, find_any, refuse
from vissl_jointssl.preparation.splitting import hash_patient

LABEL_NAMES = (
    *("aortic enlargement", "atelectasis", "calcification", "cardiomegaly", "consolidation", "ILD", "infiltration"),
    *("lung opacity", "nodule/mass", "pleural effusion", "pleural thickening", "pneumothorax", "pulmonary fibrosis"),
    "other lesion",
)
# PhysioNet's rarest classes are other lesions in Kaggle's table, whose 14 classes are the paper's.
_RARE = ("clavicle fracture", "edema", "emphysema", "enlarged pa", "lung cavity", "lung cyst", "mediastinal shift")
_LABELS = {name.lower(): label for label, name in enumerate(LABEL_NAMES)} | dict.fromkeys((*_RARE, "rib fracture"), 13)
_ABOVE = ("", "*/", "physionet.org/files/vindr-cxr/*/")


def vindr_cxr(root: Path) -> Recipe:
    """The paper's images, over the folder with `train` and its table, PhysioNet's or Kaggle's, or the one above it."""
    found = _sources(root, ["annotations/annotations_train.csv", "train.csv"], None)
    sources = tuple(source for source in found if source.boxes)
    return Recipe("vindr_cxr", root, sources, Options(image_size=512), LABEL_NAMES, 440 / 4394, 879 / 4394)


def vindr_cxr_official(root: Path) -> Recipe:
    """Every image, over the folder with `annotations`, or the one above it; Kaggle has no boxes of the test images."""
    train, test = (_sources(root, [f"annotations/annotations_{split}.csv"], split) for split in ("train", "test"))
    return Recipe("vindr_cxr_official", root, (*train, *test), Options(image_size=512), LABEL_NAMES)


def _sources(root: Path, tables: list[str], split: str | None) -> list[Source]:
    """The images of a table; one that is not there, or not in the table, is a `PreparationError`."""
    found = find_any(root, [above + table for above in _ABOVE for table in tables])
    [table] = by_case(found, r"[^/]*?((?:test|train)\.csv)").values()
    home = table.parent.parent if table.parent.name == "annotations" else table.parent
    images = by_case(find_any(home, [f"{table.stem.removeprefix('annotations_')}/*.dicom"]), r"([^/]+)\.dicom")
    boxes = read_box_table(table, _LABELS)
    faults = [f"{printable(table)}: names {printable(image)}, which is not there" for image in boxes.keys() - images]
    faults += [f"{printable(path)}: {table.name} lacks it" for name, path in images.items() if name not in boxes]
    refuse(sorted(faults), "get the images and the table of one release")
    return [
        Source(name, path.relative_to(root).as_posix(), hash_patient(name), "image", "XR", split, boxes=boxes[name])
        for name, path in images.items()
    ]


def _data_set(name: str, contents: str, count: int, recipe: Callable[[Path], Recipe]) -> DataSet:
    return DataSet(
        name=name,
        title="VinDr-CXR",
        home="https://physionet.org/content/vindr-cxr/1.0.0",
        licence="PhysioNet Credentialed Health Data License 1.5.0; cite Nguyen et al. 2022",
        contents=contents,
        count=count,
        modality="XR",
        labels="boxes of 14 classes",
        layout="annotations/annotations_{train,test}.csv  {train,test}/*.dicom  (of Kaggle: train.csv  train/*.dicom)",
        recipe=recipe,
    )


DATA_SETS = (
    _data_set("vindr_cxr", "4,394 chest X-rays with a finding", 4394, vindr_cxr),
    _data_set("vindr_cxr_official", "18,000 chest X-rays", 18000, vindr_cxr_official),
)
