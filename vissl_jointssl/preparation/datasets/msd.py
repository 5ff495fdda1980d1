"""Any task of the Medical Segmentation Decathlon, by its `dataset.json` (Antonelli et al., Nature Communications 2022).

The paper pre-trains on all 30 MR of task 2, Heart: the 20 of `imagesTr` and the 10 of `imagesTs`, which have no labels.
So scans without labels train in every task, whatever shares of the others are drawn for validation and test. Tasks 1
and 5 keep their sequences on a fourth axis, which becomes channels. A scan counts as a patient: names say no more.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from pathlib import Path, PurePosixPath

from vissl_jointssl.preparation.data_set import DataSet
from vissl_jointssl.preparation.errors import PreparationError, printable
from vissl_jointssl.preparation.recipe import Options, Recipe, Source
from vissl_jointssl.preparation.sources.case_files import by_case, find_any, look_for, refuse
from vissl_jointssl.preparation.splitting import hash_patient

_MODALITIES = {"CT": "CT"} | dict.fromkeys(("MRI", "FLAIR", "T1W", "T1GD", "T2W", "T2", "ADC"), "MR")
_log = logging.getLogger(__name__)


def msd(root: Path) -> Recipe:
    """What a task lists and the folder holds; give the task's folder, or one that holds this task alone."""
    file = by_case(find_any(root, ("dataset.json", "*/dataset.json")), r"(dataset)\.json")["dataset"]
    folder = file.parent
    try:
        task = json.loads(file.read_text(encoding="utf-8"))
        modality = _MODALITIES[task["modality"]["0"].upper()]
        names = tuple(str(task["labels"][str(number)]) for number in range(1, len(task["labels"])))
        name = str(task["name"])
        pairs: list[tuple[Path, Path | None]] = [(_inside(folder, name), None) for name in task["test"]]
        pairs += [(_inside(folder, item["image"]), _inside(folder, item["label"])) for item in task["training"]]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise PreparationError(
            f"{printable(file)}: is not the list of a Decathlon task, which has name, modality, labels, training and "
            "test, and no path that leaves its folder. Next: unpack the task's archive again"
        ) from None
    present = set(look_for(folder, ("imagesTr/*.nii*", "labelsTr/*.nii*", "imagesTs/*.nii*")))
    listed = [path for pair in pairs for path in pair if path is not None]
    faults = [f"{printable(path)}: {file.name} does not list it" for path in sorted(present.difference(listed))]
    faults += [f"{printable(path)}: {file.name} lists it twice" for path, times in Counter(listed).items() if times > 1]
    kept = [pair for pair in pairs if not present.isdisjoint(pair)]
    gone = [path for pair in kept for path in pair if path is not None and path not in present]
    refuse([*faults, *(f"{printable(path)}: is missing" for path in gone)], "unpack the task's archive again")
    if len(kept) < len(pairs):
        _log.warning("%s: %d of the %d scans that it lists are here", printable(file), len(kept), len(pairs))
    sources = []
    for image, label in kept:
        patient = hash_patient(f"msd/{name}/{image.name}")
        paths = [None if path is None else path.relative_to(root).as_posix() for path in (image, label)]
        split = "train" if label is None else None
        sources.append(Source(patient, str(paths[0]), patient, modality=modality, split=split, label_path=paths[1]))
    return Recipe("msd", root, tuple(sources), Options(fourth_axis="channels"), names)


def _inside(folder: Path, name: str) -> Path:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise ValueError("leaves the folder")
    return folder / path


DATA_SETS = (
    DataSet(
        name="msd",
        title="Medical Segmentation Decathlon",
        home="http://medicaldecathlon.com",
        licence="CC BY-SA 4.0",
        contents="one of ten tasks; of the paper, Task02_Heart: 30 heart MR, 20 with labels",
        count=None,
        modality="CT, MR",
        labels="the task's own; of Heart, left atrium 1",
        layout="dataset.json  imagesTr/la_003.nii.gz  labelsTr/la_003.nii.gz  imagesTs/la_001.nii.gz  ...",
        recipe=msd,
    ),
)
