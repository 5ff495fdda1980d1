"""Opens a config's data as training will, and makes one data set of several manifests."""

from __future__ import annotations

from collections.abc import Sequence

from vissl.config import AttrDict

from vissl_jointssl.manifest import Entry, Manifest, ManifestError, read_manifest
from vissl_jointssl.plugin.slice_dataset import SliceDataset
from vissl_jointssl.plugin.volume_dataset import VolumeDataset

SOURCES: dict[str, type[VolumeDataset | SliceDataset]] = {
    "volume_dataset": VolumeDataset,
    "slice_dataset": SliceDataset,
}

VOLUME_TRANSFORMS = ("volume_views", "volume_centre_view")


def read_data(cfg: AttrDict) -> tuple[list[Manifest], list[str]]:
    """Open every manifest, and every array's header, so that what is wrong with a file is known before.

    One source of ours may have several `DATA_PATHS`, which VISSL refuses (vissl/data/dataset_catalog.py:262); they
    become, in place, the one path of one data set with one index.

    Returns:
        The manifests, and what is wrong with the data, in words.
    """
    manifests: list[Manifest] = []
    faults: list[str] = []
    for split in ["TRAIN", "TEST"] if cfg.TEST_MODEL else ["TRAIN"]:
        sources, paths = cfg.DATA[split].DATA_SOURCES, cfg.DATA[split].DATA_PATHS
        ours = [source for source in sources if source in SOURCES]
        if not ours or not paths:
            continue
        if len(sources) > 1:
            faults.append(
                f"config.DATA.{split}.DATA_SOURCES is {list(sources)}; VISSL would zip them and give one index to a "
                f"sample of each: name {ours[0]} once and list every manifest in config.DATA.{split}.DATA_PATHS"
            )
            continue
        if len(paths) > 1:
            cfg.DATA[split].DATA_PATHS = [list(paths)]
        found, found_faults = _read_split(cfg, split)
        manifests += found
        faults += found_faults
    return manifests, faults


def training_samples(cfg: AttrDict) -> int | None:
    """N, or None where only VISSL knows it, because the source is its own, and where a manifest is unusable."""
    section = cfg.DATA.TRAIN
    if section.DATA_SOURCES[0] not in SOURCES or not section.DATA_PATHS:
        return None
    if section.DATA_LIMIT >= 0:
        return int(section.DATA_LIMIT)
    try:
        return len(_data(cfg, "TRAIN"))
    except ValueError:
        return None  # and said so by `read_data`


def _read_split(cfg: AttrDict, split: str) -> tuple[list[Manifest], list[str]]:
    section = cfg.DATA[split]
    (path,) = section.DATA_PATHS
    manifests: list[Manifest] = []
    faults: list[str] = []
    for one in [path] if isinstance(path, str) else path:
        try:
            manifest = read_manifest(one)
            manifest.check_files()
        except ManifestError as error:
            faults.append(f"config.DATA.{split}.DATA_PATHS: {error}")
            continue
        same = [other.path for other in manifests if other.fingerprint() == manifest.fingerprint()]
        if same:
            faults.append(f"config.DATA.{split}.DATA_PATHS: {same[0]} and {manifest.path} hold the same rows; name one")
        manifests.append(manifest)
    if faults:
        return manifests, faults
    try:
        data = _data(cfg, split)
    except ValueError as error:  # the manifest's, or a split that does not exist
        return manifests, [f"config.DATA.{split}.DATA_PATHS: {error}"]
    faults += _channel_faults(section, split, data.entries)
    samples = len(data)
    step = section.BATCHSIZE_PER_REPLICA * cfg.DISTRIBUTED.NUM_PROC_PER_NODE * cfg.DISTRIBUTED.NUM_NODES
    if section.DROP_LAST and samples < step:
        faults.append(
            f"one step takes {step} samples and {path} has {samples}, so an epoch would have no step; "
            f"lower config.DATA.{split}.BATCHSIZE_PER_REPLICA"
        )
    return manifests, faults


def _data(cfg: AttrDict, split: str) -> VolumeDataset | SliceDataset:
    section = cfg.DATA[split]
    return SOURCES[section.DATA_SOURCES[0]](cfg, section.DATA_PATHS[0], split, "", "")


def _channel_faults(section: AttrDict, split: str, entries: Sequence[Entry]) -> list[str]:
    """Volumes whose views do not fit in one batch; a collator would only say that sizes differ."""
    counts = {entry.shape[0] if len(entry.shape) == 4 else 1: entry.id for entry in reversed(entries)}
    faults = []
    for transform in section.TRANSFORMS:
        if transform["name"] not in VOLUME_TRANSFORMS:
            continue
        channels = transform.get("channels", "choose")
        few = min(counts)
        if channels == "all" and len(counts) > 1:
            shown = ", ".join(f"{count} ({counts[count]!r} for one)" for count in sorted(counts))
            faults.append(
                f"config.DATA.{split}.TRANSFORMS: channels is all, but volumes have different numbers of them: "
                f"{shown}; choose one channel of each volume with channels: choose, or prepare them alike"
            )
        elif isinstance(channels, int) and channels >= few:
            faults.append(
                f"config.DATA.{split}.TRANSFORMS: channels is {channels}, counted from 0, but volume {counts[few]!r} "
                f"has {few} of them"
            )
    return faults
