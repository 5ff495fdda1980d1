"""Which volumes and slices a batch's indices mean, in the words of the manifest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vissl_jointssl.plugin.slice_dataset import SliceDataset
from vissl_jointssl.plugin.volume_dataset import VolumeDataset

SHOWN = 20


def sample_names(dataset: Any, indices: Sequence[int]) -> list[str]:
    """Ids of the manifest and the files they stand for; the bare index where a source of VISSL's is read.

    Args:
        dataset: VISSL's `GenericSSLDataset` (vissl/data/ssl_dataset.py:298), whose first source is asked.
        indices: As VISSL's `data_idx`.
    """
    return [_name(dataset.data_objs[0], index) for index in indices]


def shown(names: Sequence[str]) -> str:
    """The first of many names, and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _name(source: Any, index: int) -> str:
    if isinstance(source, VolumeDataset):
        entry = source.rows[index].entry
        return f"{entry.id} ({entry.path})"
    if isinstance(source, SliceDataset):
        position, offset = source.locate(index)
        entry = source.rows[position].entry
        place = f", slice {offset}" if entry.kind == "volume" else ""
        return f"{entry.id} ({entry.path}{place})"
    return f"sample {index}"
