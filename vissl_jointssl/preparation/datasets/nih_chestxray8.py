"""NIH ChestX-ray8: frontal chest X-rays, for pre-training (Wang et al., CVPR 2017).

The paper counts 108,948, the first release. The home has had 112,120 of 30,805 patients since ("ChestX-ray14") and no
list of the first ones; this is all of them. `test_list.txt` tests; who validates is drawn from the patients of
`train_val_list.txt` where a share is asked for. An image has several findings or none, which is more than the one class
of a row, so `Data_Entry_2017*.csv` is not read.
"""

from __future__ import annotations

from pathlib import Path

from vissl_jointssl.preparation.data_set import DataSet
from vissl_jointssl.preparation.errors import printable
from vissl_jointssl.preparation.recipe import Options, Recipe, Source
from vissl_jointssl.preparation.sources.case_files import by_case, find_any, refuse
from vissl_jointssl.preparation.splitting import hash_patient


def nih_chestxray8(root: Path) -> Recipe:
    """The recipe, over the folder with the two lists; the one above it and its `images` are understood.

    At 512 of their 1024 pixels a side the images take 29 GB; training sees 224.

    Raises:
        WrongFolder: If a list or every image is missing.
        PreparationError: If an image is there twice or on none of the lists, or a name on both. A listed image need not
            be there: many people keep some of the twelve archives, and the count says so.
    """
    root = root.absolute().parent if root.name == "images" else root
    lists = [_list(root, name) for name in ("train_val_list.txt", "test_list.txt")]
    train, test = (set(path.read_text(encoding="utf-8").split()) for path in lists)
    refuse([f"{name}: on both lists" for name in sorted(train & test)], "get the two lists again")
    images = by_case(find_any(lists[0].parent, ["images*/**/*.png"]), r"(\d{8}_\d{3}\.png)")
    listed = train | test
    strange = [f"{printable(path)}: on none of the lists" for name, path in images.items() if name not in listed]
    refuse(strange, "take them out of the folder")
    sources = (
        Source(
            id=name[:12],  # PPPPPPPP_NNN: patient and number
            path=path.relative_to(root).as_posix(),
            patient=hash_patient(f"nih_chestxray8/{name[:8]}"),
            kind="image",
            modality="XR",
            split="test" if name in test else None,
        )
        for name, path in images.items()
    )
    return Recipe("nih_chestxray8", root, tuple(sources), Options(image_size=512))


def _list(root: Path, name: str) -> Path:
    return by_case(find_any(root, [name, f"*/{name}"]), f"({name})")[name]


DATA_SETS = (
    DataSet(
        name="nih_chestxray8",
        title="NIH ChestX-ray8",
        home="https://nihcc.app.box.com/v/ChestXray-NIHCC",
        licence="free to use; link to the home, cite Wang et al. 2017 and name the NIH Clinical Center",
        contents="112,120 chest X-rays of 30,805 patients",
        count=112120,
        modality="XR",
        labels="none",
        layout="train_val_list.txt  test_list.txt  images/00000001_000.png ...\n"
        "(of Kaggle: images_001/images/00000001_000.png ... images_012/ ...)",
        recipe=nih_chestxray8,
    ),
)
