"""Slices and images as the network takes them, and their masks beside them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from vissl_jointssl.evaluation.segmentation.slices import Sample
from vissl_jointssl.evaluation.segmentation.targets import Targets
from vissl_jointssl.manifest import Entry, Manifest, as_unit_interval
from vissl_jointssl.views import GREY_DEVIATION, GREY_MEAN


def read_input(manifest: Manifest, sample: Sample, channel: int = 0) -> Tensor:
    """A slice or image `(3, H, W)`, normalised as slices are in pre-training; grey becomes three equal channels.

    Args:
        manifest: Opens the row.
        sample: Only its slice is read of a volume.
        channel: Of a volume `(C, F, H, W)`.
    """
    array = manifest.open(sample.entry)
    if sample.entry.kind == "volume":
        array = (array[channel] if array.ndim == 4 else array)[sample.number]
    values = torch.from_numpy(as_unit_interval(array))
    picture = values.permute(2, 0, 1) if values.ndim == 3 else values.expand(3, -1, -1)
    return (picture - GREY_MEAN) / GREY_DEVIATION


def read_masks(manifest: Manifest, sample: Sample, targets: Targets) -> Tensor:
    """Its masks `(n, H, W)`, boolean."""
    labels = manifest.open_label(sample.entry)
    if sample.entry.kind == "volume":
        labels = labels[..., sample.number, :, :]
    return torch.from_numpy(targets.masks(np.asarray(labels)))


def read_truth(manifest: Manifest, entry: Entry, targets: Targets) -> np.ndarray:
    """Masks of a whole row, boolean `(n, F, H, W)` or `(n, H, W)`."""
    return targets.masks(np.asarray(manifest.open_label(entry)))


def resized(pictures: Tensor, size: tuple[int, int]) -> Tensor:
    """`(b, c, H, W)` at another size, linear; smoothed first along sides that shrink."""
    if pictures.shape[-2:] == size:
        return pictures
    return interpolate(pictures, size, mode="bilinear", align_corners=False, antialias=True)


def resized_masks(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """Masks `(b, n, H, W)` at another size as 0.0 and 1.0, nearest."""
    return interpolate(masks.float(), size, mode="nearest-exact")
