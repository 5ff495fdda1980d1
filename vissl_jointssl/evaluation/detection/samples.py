"""Images and their boxes as the network takes them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from vissl_jointssl.manifest import Box, Entry, Manifest, ManifestError, as_unit_interval

Target = dict[str, Tensor]


def image_tensor(manifest: Manifest, entry: Entry) -> Tensor:
    """An image as `(3, H, W)` in [0, 1]; grey is copied to three channels, which the pre-trained stem reads."""
    image = torch.from_numpy(as_unit_interval(manifest.open(entry)))
    return image.permute(2, 0, 1).contiguous() if image.ndim == 3 else image.expand(3, -1, -1).contiguous()


@lru_cache(maxsize=2**16)  # every run of an evaluation asks for the same boxes in every epoch
def true_boxes(manifest: Manifest, entry: Entry, from_labels: bool) -> tuple[Box, ...]:
    """The boxes of a row: those that it has, or else around the instances of its label map.

    Raises:
        ManifestError: If it has neither, or a file is damaged.
    """
    if entry.boxes_path is None and from_labels:
        return instance_boxes(manifest.open_label(entry))
    return manifest.open_boxes(entry)


def instance_boxes(labels: np.ndarray) -> tuple[Box, ...]:
    """A box of class 0 around each instance of a map `(H, W)`: 0 is nothing, each number one instance.

    A number is one instance even where it lies in two pieces, such as a nucleus behind another.

    Raises:
        ValueError: If the map has planes, which may overlap and are no instances.
    """
    from scipy.ndimage import find_objects

    if labels.ndim != 2:
        raise ValueError(
            f"a label map has the shape {labels.shape}, expected one plane (H, W) in which each instance has its number"
        )
    values, numbers = np.unique(labels, return_inverse=True)  # so that few large numbers cost no more than small ones
    places = find_objects(numbers.reshape(labels.shape) + 1)
    return tuple(
        Box(0, float(columns.start), float(rows.start), float(columns.stop), float(rows.stop))
        for value, (rows, columns) in zip(values, places, strict=True)
        if value != 0
    )


def label_faults(manifest: Manifest, entries: Sequence[Entry], from_labels: bool, classes: int | None) -> list[str]:
    """What makes the boxes of rows unusable: every fault of every row.

    Args:
        manifest: Opens the rows.
        entries: The rows.
        from_labels: See `true_boxes`.
        classes: How many are known, or None if as many as there are.
    """
    faults: list[str] = []
    for entry in entries:
        try:
            boxes = true_boxes(manifest, entry, from_labels)
        except ManifestError as error:
            faults.extend(error.faults)
            continue
        except ValueError as error:
            faults.append(f"row {entry.id!r}: {error}")
            continue
        unknown = sorted({box.label for box in boxes if classes is not None and box.label >= classes})
        if unknown:
            faults.append(
                f"row {entry.id!r} has boxes of the classes {unknown}, but options.classes names {classes}, from 0"
            )
    return faults


def training_sample(manifest: Manifest, entry: Entry, from_labels: bool, mirror: bool) -> tuple[Tensor, Target]:
    """Image and target of a row, mirrored in half of the cases if so wished, by PyTorch's global generator."""
    image = image_tensor(manifest, entry)
    target = training_target(true_boxes(manifest, entry, from_labels))
    return mirrored(image, target) if mirror and bool(torch.rand(()) < 0.5) else (image, target)


def training_target(boxes: Sequence[Box]) -> Target:
    """Boxes as torchvision takes them: `boxes` `(n, 4)` and `labels` `(n,)`, in which 0 is the background."""
    edges = [(box.left, box.top, box.right, box.bottom) for box in boxes]
    return {
        "boxes": torch.tensor(edges, dtype=torch.float32).reshape(-1, 4),
        "labels": torch.tensor([box.label + 1 for box in boxes], dtype=torch.int64),
    }


def mirrored(image: Tensor, target: Target) -> tuple[Tensor, Target]:
    """Image `(C, H, W)` and its boxes, left and right exchanged."""
    left, top, right, bottom = target["boxes"].unbind(1)
    width = image.shape[2]
    return image.flip(2), {**target, "boxes": torch.stack([width - right, top, width - left, bottom], dim=1)}


def batched(rows: Sequence[Entry], size: int) -> Iterator[Sequence[Entry]]:
    """Rows in groups of a size; the last may be smaller."""
    for first in range(0, len(rows), size):
        yield rows[first : first + size]
