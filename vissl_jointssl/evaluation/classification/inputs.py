"""What a network of volumes reads: the view without chance of pre-training's evaluation, normalised alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from vissl_jointssl.manifest import Entry, Manifest, as_unit_interval
from vissl_jointssl.views import (
    GREY_DEVIATION,
    GREY_MEAN,
    MISSING_SLICE,
    ViewRecipe,
    apply_view,
    centre_view,
    take_channel,
    window,
)


@dataclass(frozen=True)
class InputRecipe:
    """How a row becomes an input.

    Attributes:
        size: H and W that slices are resized to, whole.
        slices: F. Of longer volumes the middle ones, or with `spread` ones at equal distances from the first to the
            last; of shorter ones all, and the rest do not exist (NaN).
        channel: Of volumes with several, counted from 0.
        spread: See `slices`.

    Raises:
        ValueError: With every value that is out of its limits.
    """

    size: tuple[int, int]
    slices: int
    channel: int = 0
    spread: bool = False

    def __post_init__(self) -> None:
        faults = []
        if not isinstance(self.size, tuple) or len(self.size) != 2 or min(self.size) < 1:
            faults.append(f"size is {self.size!r}, expected two numbers of pixels such as [64, 64]")
        if self.slices < 1:
            faults.append(f"slices is {self.slices}, expected at least 1")
        if self.channel < 0:
            faults.append(f"channel is {self.channel}, expected one counted from 0")
        if faults:
            raise ValueError("; ".join(faults))

    def faults(self, entries: Sequence[Entry]) -> list[str]:
        """Rows that lack the channel, in words."""
        short = [e for e in entries if e.kind == "volume" and len(e.shape) == 4 and e.shape[0] <= self.channel]
        if not short:
            return []
        return [
            f"options.channel is {self.channel}, but {len(short)} volumes such as {short[0].id!r} have only "
            f"{short[0].shape[0]}, counted from 0"
        ]


def read_input(manifest: Manifest, entry: Entry, recipe: InputRecipe) -> Tensor:
    """A volume, or an image as a volume of one slice, `(F, C, H, W)`; C is 3 for an RGB image and else 1.

    Raises:
        ManifestError: If the file cannot be read.
    """
    array = manifest.open(entry)
    if entry.kind == "image":
        array = array[None] if array.ndim == 2 else np.moveaxis(array, -1, 0)[:, None]  # (F, H, W), (C, F, H, W)
    else:
        array = take_channel(array, recipe.channel)
        if recipe.spread and len(array) > recipe.slices:
            array = array[np.linspace(0, len(array) - 1, recipe.slices).round().astype(int)]
    count = array.shape[-3]
    view = ViewRecipe(size=recipe.size, num_slices=min(count, recipe.slices) if recipe.spread else recipe.slices)
    parameters = centre_view(array.shape, view)
    voxels = torch.from_numpy(as_unit_interval(window(array, parameters)))
    return (apply_view(voxels, parameters) - GREY_MEAN) / GREY_DEVIATION


class LabelledInputs(Dataset[tuple[Tensor, int]]):
    """Inputs `(F, C, H, W)` and classes of rows."""

    def __init__(self, manifest: Manifest, entries: Sequence[Entry], recipe: InputRecipe) -> None:
        self.manifest, self.entries, self.recipe = manifest, tuple(entries), recipe

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        entry = self.entries[index]
        return read_input(self.manifest, entry, self.recipe), entry.label or 0


def batches(
    inputs: LabelledInputs, order: Sequence[int], batch_size: int, workers: int = 0
) -> Iterator[tuple[Tensor, Tensor]]:
    """Volumes `(B, F, C, H, W)` and classes `(B,)` in an order; nothing here is drawn, so workers change nothing."""
    # The order as a sampler: a loader that shuffles would draw from the generator that training draws from.
    yield from DataLoader(
        inputs, batch_size=batch_size, sampler=list(order), num_workers=workers, collate_fn=padded_batch
    )


def padded_batch(samples: Sequence[tuple[Tensor, int]]) -> tuple[Tensor, Tensor]:
    """One batch of inputs of different F and C: missing slices are NaN, one channel is copied where others have 3."""
    volumes = [volume for volume, _ in samples]
    longest, channels = (max(volume.shape[axis] for volume in volumes) for axis in (0, 1))
    size = volumes[0].shape[2:]
    batch = torch.full((len(volumes), longest, channels, *size), MISSING_SLICE)
    for place, volume in zip(batch, volumes, strict=True):
        place[: len(volume)] = volume
    return batch, torch.tensor([label for _, label in samples])
