"""`volume_dataset`: VISSL's data source for the volumes of a manifest, memory-mapped."""

from __future__ import annotations

from typing import Any

import numpy as np
from vissl.config import AttrDict

from vissl_jointssl.manifest import Entry, Manifest, ManifestError, read_manifest

DEFAULT_SPLITS = {"TRAIN": ["train"], "TEST": ["test"]}


class VolumeDataset:
    """Volumes `(F, H, W)` as they lie on disk; a transform such as `volume_views` reads only what it needs of each.

    Contract with VISSL: vissl/data/ssl_dataset.py:106 (keyword arguments), 298 (`__getitem__`).

    Args:
        cfg: The run's config; read below `DATA.<split>`: `SPLITS` (which splits of the manifest), `LABEL_SOURCES`
            (when set, only entries with a label take part).
        path: The manifest file.
        split: `TRAIN` or `TEST`.
        dataset_name: VISSL's name for the set.
        data_source: The name this class is registered under.

    Raises:
        ManifestError: If the manifest or a file it lists is unusable, or if nothing is left to read. There is no grey
            stand-in for a volume that cannot be read.
    """

    def __init__(self, cfg: AttrDict, path: str, split: str, dataset_name: str, data_source: str) -> None:
        self.manifest = read_manifest(path)
        self.entries = select_entries(self.manifest, cfg, split, kinds=("volume",))

    def __len__(self) -> int:
        return len(self.entries)

    def num_samples(self) -> int:
        """VISSL's name for the length."""
        return len(self)

    def __getitem__(self, index: int) -> tuple[np.ndarray, bool]:
        """The memory-mapped volume, and True: a volume that cannot be read raises instead."""
        return self.manifest.open(self.entries[index]), True

    def get_labels(self) -> list[int]:
        """One class per volume, for `LABEL_SOURCES: [torchvision_dataset]` (vissl/data/ssl_dataset.py:242)."""
        return [entry.label for entry in self.entries if entry.label is not None]


def select_entries(manifest: Manifest, cfg: AttrDict, split: str, kinds: tuple[str, ...]) -> tuple[Entry, ...]:
    """The entries of a manifest that a data source shows under VISSL's `split`.

    Raises:
        ManifestError: If there are none.
    """
    section: Any = cfg["DATA"][split]
    splits = section.get("SPLITS", DEFAULT_SPLITS[split])
    entries = tuple(entry for kind in kinds for entry in manifest.select(kind=kind, splits=splits))
    labelled_only = bool(section.get("LABEL_SOURCES"))
    if labelled_only:
        entries = tuple(entry for entry in entries if entry.label is not None)
    if not entries:
        wanted = " and ".join(f"{kind}s" for kind in kinds)
        raise ManifestError(
            manifest.path,
            [f"no {'labelled ' if labelled_only else ''}{wanted} in the splits {list(splits)}"],
            f"choose others with config.DATA.{split}.SPLITS, or prepare more data",
        )
    return entries
