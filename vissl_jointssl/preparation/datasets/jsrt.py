"""JSRT: chest X-rays (Shiraishi et al., AJR 2000) with five organs from SCR (van Ginneken et al., MedIA 2006).

Two homes: the images, raw `.IMG` or DICOM, and the masks, which overlap, so that each organ has a plane. "Left" is the
patient's. SCR's fold 1 (124 images, the odd numbers) trains and fold 2 (123) tests. The paper has 114 + 10 and 123 and
does not say which 10 validate: they are drawn, with a seed by which they are ten. Images of 2048 pixels a side and
masks of 1024 become 512; the paper trains at 224.
"""

from __future__ import annotations

from pathlib import Path

from vissl_jointssl.preparation.data_set import DataSet
from vissl_jointssl.preparation.errors import printable
from vissl_jointssl.preparation.recipe import Options, Recipe, Source
from vissl_jointssl.preparation.sources.case_files import by_case, find_any, refuse
from vissl_jointssl.preparation.splitting import hash_patient

LABEL_NAMES = ("heart", "left clavicle", "right clavicle", "left lung", "right lung")
_IMAGE = "JPC[LN]N[0-9][0-9][0-9]"


def jsrt(root: Path) -> Recipe:
    """The recipe, over a folder with both, whatever they were unpacked to below it.

    Raises:
        WrongFolder: If no image or no mask of an organ is there.
        PreparationError: If a file is there twice, or an image without its five masks or a mask without its image.
    """
    images = by_case(
        find_any(root, [f"**/{_IMAGE}.[Ii][Mm][Gg]", f"**/{_IMAGE}.dcm"]), r"(JPC[LN]N\d{3})\.(?i:img|dcm)"
    )
    masks = [
        by_case(find_any(root, [f"**/fold[12]/masks/{organ}/{_IMAGE}.gif"]), r"(JPC[LN]N\d{3})\.gif")
        for organ in LABEL_NAMES
    ]
    faults = []
    for organ, planes in zip(LABEL_NAMES, masks, strict=True):
        faults += [
            f"{printable(path)}: has no mask of the {organ}" for name, path in images.items() if name not in planes
        ]
        faults += [f"{printable(path)}: its image is not there" for name, path in planes.items() if name not in images]
    refuse(faults, "give a folder that holds the images of JSRT and the masks of SCR")
    return Recipe(
        name="jsrt",
        root=root,
        sources=tuple(
            Source(
                id=name,
                path=path.relative_to(root).as_posix(),
                patient=hash_patient(f"jsrt/{name}"),
                kind="image",
                modality="XR",
                split="test" if masks[0][name].parts[-4] == "fold2" else None,
                plane_paths=tuple(planes[name].relative_to(root).as_posix() for planes in masks),
            )
            for name, path in images.items()
        ),
        options=Options(image_size=512),
        label_names=LABEL_NAMES,
        validation_share=10 / 124,
        seed=3,
    )


DATA_SETS = (
    DataSet(
        name="jsrt",
        title="JSRT with SCR",
        home="http://db.jsrt.or.jp/eng.php and https://www.isi.uu.nl/Research/Databases/SCR",
        licence="research and education, not to be passed on; cite Shiraishi et al. 2000, van Ginneken et al. 2006",
        contents="247 chest X-rays",
        count=247,
        modality="XR",
        labels="heart, clavicles, lungs",
        layout="All247images/JPCLN001.IMG ... JPCNN093.IMG\n"
        "scratch/fold1/masks/heart/JPCLN001.gif ...  scratch/fold2/masks/heart/JPCLN002.gif ...",
        recipe=jsrt,
    ),
)
