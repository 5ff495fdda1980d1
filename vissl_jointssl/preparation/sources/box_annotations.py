"""Boxes of images out of the files of annotation programs: COCO's JSON, and Pascal VOC's XML, one file an image.

| format | edges | becomes |
|---|---|---|
| COCO | left, top, width, height from the upper left corner of the image | as they are |
| Pascal VOC | first and last pixel, counted from 1 | left - 1, top - 1, right, bottom |

Some programs write VOC files whose edges count from 0: `first_pixel=0` takes them as they are. A table of boxes is
`box_table`'s. Boxes that leave their image are judged where the image is read.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vissl_jointssl.manifest import Box
from vissl_jointssl.preparation.errors import PreparationError, printable
from vissl_jointssl.preparation.sources.annotation_files import parse_json, parse_number, parse_xml
from vissl_jointssl.spelling import nearest

_SHOWN = 50


@dataclass(frozen=True)
class BoxAnnotations:
    """Boxes of several images.

    Attributes:
        boxes: By the image's name as the file has it, `scan1.png` or `train/scan1.png`; () where nothing was found.
        label_names: Name of each class, by its number from 0.
    """

    boxes: dict[str, tuple[Box, ...]]
    label_names: tuple[str, ...]


def read_box_annotations(path: Path, first_pixel: int = 1) -> BoxAnnotations:
    """Read a COCO file `*.json`, a VOC file `*.xml`, or a folder with VOC files.

    Args:
        path: What to read.
        first_pixel: Number of the first pixel in VOC files, 1 or 0.

    Raises:
        PreparationError: If it is none of these, or as `read_coco` and `read_voc` say.
    """
    if path.is_dir():
        files = sorted(path.glob("*.xml"))
        if not files:
            raise PreparationError(f"{printable(path)}: holds no .xml. Next: give the folder of the VOC files")
        return read_voc(files, first_pixel)
    if path.suffix.lower() == ".json":
        return read_coco(path)
    if path.suffix.lower() == ".xml":
        return read_voc([path], first_pixel)
    raise PreparationError(
        f"{printable(path)}: boxes are read from .json (COCO) and .xml (VOC). Next: export one of these"
    )


def read_coco(path: Path) -> BoxAnnotations:
    """Read the boxes of a COCO file; classes are numbered from 0 in the order of their COCO ids.

    Raises:
        PreparationError: With every fault: no COCO file, an image or class that does not exist or exists twice, no box
            with a width and height above 0, a region of many objects (`iscrowd`), which is no box.
    """
    content = parse_json(path)
    if not isinstance(content, dict) or not all(
        _is_table(content.get(k)) for k in ("images", "categories", "annotations")
    ):
        raise PreparationError(
            f"{printable(path)}: is no COCO file, which has lists images, categories and annotations of objects. "
            "Next: export the boxes as COCO detection"
        )
    faults: list[str] = []
    images = _by_id(content["images"], "images", "file_name", faults)
    names = _by_id(content["categories"], "categories", "name", faults)
    labels = {id: label for label, id in enumerate(sorted(names))}
    found: dict[str, list[Box]] = {name: [] for name in images.values()}
    for number, row in enumerate(content["annotations"]):
        where = f"annotations[{number}]"
        image, category = row.get("image_id"), row.get("category_id")
        box = _edges(row.get("bbox"))
        own = [
            f"{where}: {what} {value!r} does not exist"
            for what, value, known in (("image_id", image, images), ("category_id", category, names))
            if not _knows(known, value)
        ]
        if box is None:
            own.append(
                f"{where}: bbox is {str(row.get('bbox'))[:80]}, expected left, top, and a width and height above 0"
            )
        if row.get("iscrowd"):
            own.append(f"{where}: is a region of many objects (iscrowd); take it out or draw its boxes")
        faults += own
        if box is not None and not own:
            left, top, width, height = box
            found[images[image]].append(Box(labels[category], left, top, left + width, top + height))
    _refuse(path, faults)
    return BoxAnnotations(
        {name: tuple(boxes) for name, boxes in found.items()}, tuple(names[id] for id in sorted(names))
    )


def read_voc(paths: Iterable[Path], first_pixel: int = 1, label_names: Sequence[str] | None = None) -> BoxAnnotations:
    """Read Pascal VOC files; objects marked as difficult are boxes like all others.

    Args:
        paths: One file an image.
        first_pixel: Number of the first pixel, 1 or 0; see above.
        label_names: Of the classes in their order; None numbers the names of the files in alphabetical order.

    Raises:
        PreparationError: With every fault of every file: not XML, one that declares a document type or entities, no
            file name, an unknown class, no box; or two files of one image.
    """
    if first_pixel not in (0, 1):
        raise PreparationError(f"first_pixel is {first_pixel}, expected 1, or 0 where edges count from 0")
    paths = list(paths)
    faults: list[str] = []
    objects: dict[str, list[tuple[str, tuple[float, ...]]]] = {}
    for path in paths:
        try:
            root = parse_xml(path)
        except PreparationError as error:
            faults.append(str(error))
            continue
        image = (root.findtext("filename") or "").strip()
        if root.tag != "annotation" or not image:
            faults.append(f"{printable(path)}: is no VOC file, which is an <annotation> with a <filename>")
            continue
        if image in objects:
            faults.append(f"{printable(path)}: another file is of {image!r} as well")
        own = objects.setdefault(image, [])
        for number, item in enumerate(root.findall("object"), start=1):
            name = (item.findtext("name") or "").strip()
            first_x, first_y, last_x, last_y = (
                parse_number(item.findtext(f"bndbox/{edge}")) for edge in ("xmin", "ymin", "xmax", "ymax")
            )
            edges = (first_x - first_pixel, first_y - first_pixel, last_x, last_y)
            if not name or (label_names is not None and name not in label_names):
                meant = nearest(name, label_names) if label_names and name else ""
                faults.append(f"{printable(path)}: object {number} has the class {name!r}, which is not known{meant}")
            elif not (edges[0] < edges[2] and edges[1] < edges[3]):
                faults.append(f"{printable(path)}: object {number} has a bndbox that is empty or no numbers")
            else:
                own.append((name, edges))
    _refuse(paths[0].parent if paths else Path(), faults)
    names = tuple(label_names or sorted({name for own in objects.values() for name, _ in own}))
    return BoxAnnotations(
        {image: tuple(Box(names.index(name), *edges) for name, edges in own) for image, own in objects.items()}, names
    )


def _is_table(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(row, dict) for row in value)


def _by_id(rows: Sequence[Mapping[str, Any]], table: str, column: str, faults: list[str]) -> dict[int, str]:
    """Names by id; what is wrong with a row is added to `faults`."""
    found: dict[int, str] = {}
    for number, row in enumerate(rows):
        id, name = row.get("id"), row.get(column)
        if not isinstance(id, int) or isinstance(id, bool) or not isinstance(name, str) or not name:
            faults.append(f"{table}[{number}]: has no whole number as id, or no {column}")
        elif id in found:
            faults.append(f"{table}[{number}]: the id {id} occurs twice")
        else:
            found[id] = name
    twice = [name for name, count in Counter(found.values()).items() if count > 1]
    faults += [f"{table}: two have the {column} {name!r}" for name in twice]
    return found


def _knows(known: Mapping[int, str], id: Any) -> bool:
    return isinstance(id, int) and id in known


def _edges(value: Any) -> tuple[float, ...] | None:
    """Left, top, width and height of a COCO box, or None."""
    if not isinstance(value, list) or len(value) != 4:
        return None
    if not all(isinstance(edge, int | float) and not isinstance(edge, bool) for edge in value):
        return None
    try:
        edges = tuple(float(edge) for edge in value)
    except OverflowError:
        return None
    return edges if all(map(math.isfinite, edges)) and edges[2] > 0 and edges[3] > 0 else None


def _refuse(path: Path, faults: Sequence[str]) -> None:
    if faults:
        more = [f"and {len(faults) - _SHOWN} more"] if len(faults) > _SHOWN else []
        head = f"{printable(path)}: boxes cannot be read ({len(faults)} faults). Next: correct these and export again:"
        raise PreparationError("\n  - ".join([head, *faults[:_SHOWN], *more]))
