"""`slice_dataset`: VISSL's data source for 2D work, every slice of every volume and every 2D image of a manifest.

Stage 1 and slice evaluation read the same cache as the volume stages: no PNG export.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Sequence

import numpy as np
from PIL import Image
from vissl.config import AttrDict

from vissl_jointssl.manifest import Entry, as_unit_interval
from vissl_jointssl.plugin.volume_dataset import select_rows


class SliceDataset:
    """Slices and images as 8-bit RGB `PIL.Image`, so that VISSL's stock transforms apply.

    Arguments, errors and contract are `VolumeDataset`'s. A slice carries the label of its volume.
    """

    def __init__(
        self, cfg: AttrDict, path: str | Sequence[str], split: str, dataset_name: str, data_source: str
    ) -> None:
        self.rows = select_rows(path, cfg, split, kinds=("volume", "image"))
        counts = [_slice_count(row.entry) for row in self.rows]
        self.ends = list(itertools.accumulate(counts))  # index of the first slice after each entry

    @property
    def entries(self) -> tuple[Entry, ...]:
        """The rows of the manifests, in the order of their slices' indices."""
        return tuple(row.entry for row in self.rows)

    def __len__(self) -> int:
        return self.ends[-1]

    def num_samples(self) -> int:
        """VISSL's name for the length."""
        return len(self)

    def locate(self, index: int) -> tuple[int, int]:
        """Which entry, and which slice of it, a sample index means."""
        entry = bisect.bisect_right(self.ends, index)
        return entry, index - (self.ends[entry - 1] if entry else 0)

    def __getitem__(self, index: int) -> tuple[Image.Image, bool]:
        """One slice, and True: what cannot be read raises instead."""
        position, offset = self.locate(index)
        row = self.rows[position]
        pixels = row.open()
        if row.entry.kind == "volume":
            pixels = pixels[np.unravel_index(offset, pixels.shape[:-2])]  # those of the first channel come first
        levels = np.clip(np.rint(as_unit_interval(pixels) * 255), 0, 255).astype(np.uint8)
        return Image.fromarray(levels).convert("RGB"), True

    def get_labels(self) -> list[int]:
        """One class per slice, for `LABEL_SOURCES: [torchvision_dataset]` (vissl/data/ssl_dataset.py:242)."""
        labels = []
        for entry in self.entries:
            if entry.label is not None:
                labels += [entry.label] * _slice_count(entry)
        return labels


def _slice_count(entry: Entry) -> int:
    """Slices of a volume, of every channel one by one; 1 for an image."""
    return math.prod(entry.shape[:-2]) if entry.kind == "volume" else 1
