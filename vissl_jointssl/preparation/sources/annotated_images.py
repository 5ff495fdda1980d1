"""Boxes of a COCO or Pascal VOC file, given to the images of a recipe that they name."""

from __future__ import annotations

import logging
from collections import defaultdict
from dataclasses import replace
from pathlib import Path, PurePosixPath

from vissl_jointssl.preparation.errors import PreparationError, printable
from vissl_jointssl.preparation.recipe import Recipe, Source
from vissl_jointssl.preparation.sources.box_annotations import BoxAnnotations

_SHOWN = 50
_log = logging.getLogger(__name__)


def with_boxes(recipe: Recipe, annotations: BoxAnnotations, file: Path) -> Recipe:
    """The recipe with the boxes of its images.

    An image is the one whose path ends in the name that the annotations give, folders included where they give them.
    Images that they do not name keep no boxes at all, which says that nobody looked.

    Args:
        recipe: Of a plain folder or a CSV.
        annotations: Boxes by image.
        file: Where they are from, for messages.

    Raises:
        PreparationError: With every name that fits no image or several, or two that fit one.
    """
    by_name: dict[str, list[Source]] = defaultdict(list)
    for source in recipe.sources:
        if source.kind == "image":
            by_name[PurePosixPath(source.path).name].append(source)
    chosen: dict[str, str] = {}
    faults = []
    for name in annotations.boxes:
        parts = PurePosixPath(name.replace("\\", "/")).parts
        fitting = [source for source in by_name[parts[-1]] if _ends_in(source, parts)] if parts else []
        if len(fitting) != 1:
            faults.append(f"{printable(name)} fits {len(fitting)} images, expected one")
        elif fitting[0].id in chosen:
            faults.append(f"{printable(name)} and {printable(chosen[fitting[0].id])} are one image")
        else:
            chosen[fitting[0].id] = name
    if faults:
        more = [f"and {len(faults) - _SHOWN} more"] if len(faults) > _SHOWN else []
        message = f"{printable(file)}: its images are not those of {printable(recipe.root)}:"
        raise PreparationError("\n  - ".join([message, *faults[:_SHOWN], *more]))
    _log.info("%s: boxes of %d images; classes: %s", printable(file), len(chosen), ", ".join(annotations.label_names))
    sources = tuple(
        replace(source, boxes=annotations.boxes[chosen[source.id]]) if source.id in chosen else source
        for source in recipe.sources
    )
    return replace(recipe, sources=sources, label_names=annotations.label_names)


def _ends_in(source: Source, parts: tuple[str, ...]) -> bool:
    return PurePosixPath(source.path).parts[-len(parts) :] == parts
