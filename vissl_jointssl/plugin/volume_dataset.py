"""`volume_dataset`: VISSL's data source for the volumes of a manifest, memory-mapped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from vissl.config import AttrDict

from vissl_jointssl.manifest import Entry, Manifest, ManifestError, read_manifest
from vissl_jointssl.plugin.volume_sample import VolumeSample
from vissl_jointssl.views import SampleKey

DEFAULT_SPLITS = {"TRAIN": ["train"], "TEST": ["test"]}


class VolumeDataset:
    """Volumes as they lie on disk; a transform such as `volume_views` reads only what it needs of each.

    Every sample carries (seed, epoch, index), which its views are drawn from. Contract with VISSL:
    vissl/data/ssl_dataset.py:106 (keyword arguments), 298 (`__getitem__`); vissl/trainer/train_task.py:792
    (`set_train_phase_idx`, before the epoch's iterator and its workers are made).

    Args:
        cfg: The run's config; read: `SEED_VALUE`; below `DATA.<split>`: `SPLITS` (which splits of the manifest),
            `LABEL_SOURCES` (when set, only entries with a label take part).
        path: The manifest file, or several, whose volumes then share one index from the first manifest's to the last's.
            (Several *sources* VISSL would zip, and give one index to a volume of each.)
        split: `TRAIN` or `TEST`.
        dataset_name: VISSL's name for the set.
        data_source: The name this class is registered under.

    Raises:
        ManifestError: If the manifest or a file it lists is unusable, or if nothing is left to read. There is no grey
            stand-in for a volume that cannot be read.
    """

    def __init__(
        self, cfg: AttrDict, path: str | Sequence[str], split: str, dataset_name: str, data_source: str
    ) -> None:
        self.rows = select_rows(path, cfg, split, kinds=("volume",))
        self.seed = int(cfg.get("SEED_VALUE", 0))  # the same on every rank, and VISSL's default
        self.epoch = 0

    @property
    def entries(self) -> tuple[Entry, ...]:
        """The rows of the manifests, one for each index."""
        return tuple(row.entry for row in self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def num_samples(self) -> int:
        """VISSL's name for the length."""
        return len(self)

    def set_train_phase_idx(self, train_phase_idx: int) -> None:
        """VISSL's word that a training phase begins: views are drawn anew in each.

        Its own `set_epoch` would count evaluation phases, too. Before the first training phase the index is -1.
        """
        self.epoch = max(0, train_phase_idx)

    def __getitem__(self, index: int) -> tuple[VolumeSample, bool]:
        """The memory-mapped volume, and True: a volume that cannot be read raises instead."""
        row = self.rows[index]
        key = SampleKey(self.seed, self.epoch, int(index))
        return VolumeSample(row.open(), row.entry.spacing, key, row.entry.id), True

    def get_labels(self) -> list[int]:
        """One class per volume, for `LABEL_SOURCES: [torchvision_dataset]` (vissl/data/ssl_dataset.py:242)."""
        return [row.entry.label for row in self.rows if row.entry.label is not None]


class Row(NamedTuple):
    """One entry and the manifest it is an entry of."""

    manifest: Manifest
    entry: Entry

    def open(self) -> np.ndarray:
        """As `Manifest.open`."""
        return self.manifest.open(self.entry)


def select_rows(path: str | Sequence[str], cfg: AttrDict, split: str, kinds: tuple[str, ...]) -> tuple[Row, ...]:
    """What a data source shows of one or several manifests under VISSL's `split`, in their order.

    Raises:
        ManifestError: As in `select_entries`, for the first manifest at fault.
    """
    paths = [path] if isinstance(path, str) else path
    manifests = [read_manifest(one) for one in paths]
    return tuple(Row(one, entry) for one in manifests for entry in select_entries(one, cfg, split, kinds))


def select_entries(manifest: Manifest, cfg: AttrDict, split: str, kinds: tuple[str, ...]) -> tuple[Entry, ...]:
    """The entries of one manifest that a data source shows under VISSL's `split`.

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
