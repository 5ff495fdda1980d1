"""Boxes of an image, for detection: a JSON list beside the array."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vissl_jointssl.atomic_file import write_at_once
from vissl_jointssl.manifest.json_file import read_json

_LARGEST_FILE = 2**24  # bytes: a hundred thousand boxes


@dataclass(frozen=True)
class Box:
    """A box in pixels, x to the right along W and y down along H; edges, so that 0 to 10 covers ten pixels.

    Attributes:
        label: Class from 0.
        left, top, right, bottom: With left < right and top < bottom.
    """

    label: int
    left: float
    top: float
    right: float
    bottom: float


def read_boxes(path: Path, shape: tuple[int, ...]) -> tuple[Box, ...]:
    """The boxes of an array of `(H, W)`.

    Raises:
        ValueError: If the file is missing or no list of boxes, or one is empty or leaves the array.
    """
    content = read_json(path, _LARGEST_FILE)
    if not isinstance(content, list):
        raise ValueError("is no list of boxes")
    try:
        boxes = tuple(Box(**item) for item in content)
    except TypeError:
        raise ValueError(f"is no list of boxes; each has {', '.join(Box.__annotations__)}") from None
    for number, box in enumerate(boxes):
        fault = box_fault(box, shape)
        if fault is not None:
            raise ValueError(f"has a box, number {number} from 0, that {fault}")
    return boxes


def write_boxes(boxes: Iterable[Box], path: Path) -> None:
    """Write them in one step, one box a line."""
    lines = ",\n".join(json.dumps(asdict(box)) for box in boxes)
    write_at_once(f"[\n{lines}\n]\n".encode(), path)


def box_fault(box: Box, shape: tuple[int, ...]) -> str | None:
    """What is wrong with a box of an array of `(H, W)`, or None."""
    edges = (box.left, box.top, box.right, box.bottom)
    if not all(_is_number(edge) for edge in edges):
        return "has an edge that is not a number"
    if not isinstance(box.label, int) or isinstance(box.label, bool) or box.label < 0:
        return "has no class counted from 0"
    if not (box.left < box.right and box.top < box.bottom):
        return "is empty"
    if not (box.left >= 0 and box.top >= 0 and box.right <= shape[1] and box.bottom <= shape[0]):
        return f"leaves the array of {shape[0]} x {shape[1]} pixels"
    return None


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return isinstance(value, int) or math.isfinite(value)  # isfinite() overflows on integers above 1e308
