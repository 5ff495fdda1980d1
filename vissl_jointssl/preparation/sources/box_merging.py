"""Boxes that several readers drew around one finding, as one box.

The paper: "for images where labels of the same class obtained from different experts are overlapped, we pre-process by
averaging overlapping bounding boxes with an intersection-over-union of 20%". It does not say what becomes of a chain,
where A overlaps B and B overlaps C but A hardly overlaps C. We take the whole chain as one finding (the connected parts
of the graph of overlaps), because that alone does not depend on the order in which readers are listed: greedy merging,
which starts from one box and compares with the growing average, does.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from vissl_jointssl.manifest import Box


def merge_boxes(boxes: Iterable[Box], threshold: float = 0.2) -> tuple[Box, ...]:
    """Average the boxes of one class that overlap; boxes of two classes never touch one another.

    Args:
        boxes: Of one image, by all of its readers.
        threshold: Two boxes are of one finding if their intersection over union is above it.

    Returns:
        A box for each finding, its edges the mean of the edges of the group, every reader's box counting the same;
        sorted by class, then by edges. The same for any order of the input.

    Raises:
        ValueError: If a box is empty or `threshold` is not in [0, 1).
    """
    if not 0 <= threshold < 1:
        raise ValueError(f"threshold is {threshold}, expected an overlap from 0 to below 1, such as 0.2")
    boxes = list(boxes)
    for box in boxes:
        if not (box.left < box.right and box.top < box.bottom):
            raise ValueError(f"{box} is empty, expected left < right and top < bottom")
    return tuple(sorted((_mean(group) for group in _groups(boxes, threshold)), key=_place))


def intersection_over_union(first: Box, second: Box) -> float:
    """Area that two boxes share over the area that they cover together, in [0, 1]; classes are not looked at."""
    width = min(first.right, second.right) - max(first.left, second.left)
    height = min(first.bottom, second.bottom) - max(first.top, second.top)
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    return shared / (_area(first) + _area(second) - shared)


def _groups(boxes: Sequence[Box], threshold: float) -> list[list[Box]]:
    """Connected parts of the graph in which boxes of one class are linked if they overlap by more than `threshold`."""
    groups: list[list[Box]] = []
    for box in boxes:
        joined, others = [box], []
        for group in groups:
            if any(box.label == other.label and intersection_over_union(box, other) > threshold for other in group):
                joined += group
            else:
                others.append(group)
        groups = [*others, joined]
    return groups


def _mean(group: Sequence[Box]) -> Box:
    """Fsum rounds once, so that the order within a group cannot show in the last digit."""
    count = len(group)
    return Box(
        group[0].label,
        math.fsum(box.left for box in group) / count,
        math.fsum(box.top for box in group) / count,
        math.fsum(box.right for box in group) / count,
        math.fsum(box.bottom for box in group) / count,
    )


def _area(box: Box) -> float:
    return (box.right - box.left) * (box.bottom - box.top)


def _place(box: Box) -> tuple[float, ...]:
    return (box.label, box.left, box.top, box.right, box.bottom)
