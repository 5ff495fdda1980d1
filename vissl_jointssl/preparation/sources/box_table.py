"""A table of boxes, one a line, in the columns of VinDr-CXR: image, reader, class and edges in pixels."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

from vissl_jointssl.manifest import Box
from vissl_jointssl.preparation.errors import PreparationError, printable
from vissl_jointssl.preparation.sources.annotation_files import parse_number
from vissl_jointssl.preparation.sources.box_merging import merge_boxes
from vissl_jointssl.preparation.sources.case_files import refuse

_COLUMNS = ("image_id", "class_name", "x_min", "y_min", "x_max", "y_max")
_READER = "rad_id"
_NOTHING = "no finding"  # the class of a line that says that its reader found nothing, and has no edges


def read_box_table(path: Path, labels: Mapping[str, int]) -> dict[str, tuple[Box, ...]]:
    """The boxes of every image of the table, () where nobody found anything.

    Where the table names readers, what they drew around one finding is averaged (`merge_boxes`); where it does not, the
    boxes are agreed upon and stay.

    Args:
        path: CSV with a line of names; its columns may stand in any order, among others.
        labels: Class, in small letters, to its number.

    Raises:
        PreparationError: If a column is missing, or lines name no image, an unknown class, or no box with left < right
            and top < bottom, with the numbers of the lines.
    """
    found: dict[str, list[Box]] = {}
    faults = []
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = csv.DictReader(file)
        columns = rows.fieldnames or ()
        missing = [column for column in _COLUMNS if column not in columns]
        if missing:
            raise PreparationError(f"{printable(path)}: has no column {', '.join(missing)}. Next: get the table again")
        for row in rows:
            boxes = found.setdefault(row["image_id"], [])
            name = (row["class_name"] or "").lower()
            if name == _NOTHING:
                continue
            left, top, right, bottom = (parse_number(row[column]) for column in _COLUMNS[2:])
            if not row["image_id"] or name not in labels:
                faults.append(f"{printable(path)}: line {rows.line_num} names no image, or a class that is not known")
            elif left < right and top < bottom:
                boxes.append(Box(labels[name], left, top, right, bottom))
            else:
                faults.append(f"{printable(path)}: line {rows.line_num} has a box that is empty or no number")
    refuse(faults, "get the table again")
    if _READER in columns:
        return {image: merge_boxes(boxes) for image, boxes in found.items()}
    return {image: tuple(boxes) for image, boxes in found.items()}
