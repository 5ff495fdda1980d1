"""Reading the cache in training: only what a view needs, only views between processes, and no memory that grows."""

from __future__ import annotations

import ctypes
import dataclasses
import gc
import logging
import multiprocessing.queues
import os
import pickle
import re
from collections.abc import Callable
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from vissl_jointssl.manifest import Entry, ManifestError, write_manifest, write_quarantine
from vissl_jointssl.plugin.slice_dataset import SliceDataset
from vissl_jointssl.plugin.volume_dataset import VolumeDataset
from vissl_jointssl.plugin.volume_sample import VolumeSample
from vissl_jointssl.plugin.volume_views import VolumeViews
from vissl_jointssl.views import SampleKey

# isort: split
from vissl.config import AttrDict
from vissl.data import build_dataset

MEGABYTE = 2**20


def _entry(name: str, shape: tuple[int, ...], path: str | None = None) -> Entry:
    return Entry(
        name, "volume", path or f"{name}.npy", None, 0, "train", name, "CT", (1.0, 1.0, 1.0), shape, "uint16", "0" * 64
    )


def _source(kind: Any, manifest: Path) -> Any:
    config = AttrDict({"DATA": {"TRAIN": {}, "TEST": {}}})
    return kind(cfg=config, path=str(manifest), split="TRAIN", dataset_name="", data_source="")


@pytest.fixture
def six_volumes(tmp_path: Path) -> Path:
    """Six volumes of 0.9 MB."""
    rng, shape = np.random.default_rng(0), (48, 96, 96)
    for number in range(6):
        np.save(tmp_path / f"v{number}.npy", rng.integers(0, 65535, shape).astype(np.uint16))
    write_manifest(tmp_path / "manifest.csv", [_entry(f"v{number}", shape) for number in range(6)])
    return tmp_path / "manifest.csv"


@pytest.fixture
def sparse_volume(tmp_path: Path) -> Path:
    """A volume of 256 MB of which nothing is in memory, nor on the disk."""
    shape = (512, 512, 512)
    np.lib.format.open_memmap(tmp_path / "v.npy", "w+", np.uint16, shape)
    write_manifest(tmp_path / "manifest.csv", [_entry("v", shape)])
    return tmp_path / "manifest.csv"


def _resident(path: Path) -> int:
    """Bytes of a file that are in memory, as the kernel says (mincore)."""
    mapped = np.memmap(path, np.uint8, "r")
    pages = (ctypes.c_ubyte * -(-mapped.size // 4096))()
    assert ctypes.CDLL(None).mincore(ctypes.c_void_p(mapped.ctypes.data), ctypes.c_size_t(mapped.size), pages) == 0
    return 4096 * sum(page & 1 for page in bytes(pages))


def _resident_after_reading(path: Path) -> int:
    np.load(path).sum()
    return _resident(path)


# --- only what a view needs is read


def test_a_slice_of_a_large_volume_reads_that_slice_alone(sparse_volume: Path) -> None:
    path = sparse_volume.parent / "v.npy"
    before = _resident(path)
    source = _source(SliceDataset, sparse_volume)
    assert np.asarray(source[300][0]).shape == (512, 512, 3)
    assert 512 * 512 * 2 <= _resident(path) - before < 32 * MEGABYTE  # half a megabyte, and what is read ahead: 8 seen
    # Read again where the kernel has let go of pages since: under pressure it takes back what was read once.
    assert any(_resident_after_reading(path) > 255 * MEGABYTE for _ in range(5))


@pytest.mark.parametrize("options", [{"family": "crop"}, {"family": "released", "transforms": ["flip"]}])
def test_a_view_of_a_large_volume_reads_its_window_alone(sparse_volume: Path, options: dict[str, Any]) -> None:
    path = sparse_volume.parent / "v.npy"
    before = _resident(path)
    transform = VolumeViews(total_num_crops=2, num_slices=4, size=[32, 32], **options)
    assert len(transform(_source(VolumeDataset, sparse_volume)[0][0])) == 2
    assert 0 < _resident(path) - before < 64 * MEGABYTE  # two views of four slices, and what is read ahead: 24 seen


# --- only views travel


def test_a_sample_is_pickled_as_the_place_of_its_volume(tmp_path: Path) -> None:
    for order in ("C", "F"):
        volume = np.asarray(np.random.default_rng(0).integers(0, 9, (4, 60, 70, 80)), np.uint16, order=order)
        np.save(tmp_path / "v.npy", volume)
        mapped = np.load(tmp_path / "v.npy", mmap_mode="r")
        sample = VolumeSample(mapped, (3.0, 1.0, 1.0), SampleKey(1, 2, 3), "name")
        data = pickle.dumps(sample)
        assert len(data) < 1000
        copy = pickle.loads(data)  # noqa: S301 - our own
        assert isinstance(copy.volume, np.memmap)
        assert not copy.volume.flags.writeable
        np.testing.assert_array_equal(copy.volume, volume)
        assert (copy.spacing, copy.key, copy.name) == (sample.spacing, sample.key, sample.name)


def test_a_sample_in_memory_and_a_part_of_a_map_are_pickled_by_value(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", np.arange(24, dtype=np.uint16).reshape(2, 3, 4))
    mapped = np.load(tmp_path / "v.npy", mmap_mode="r")
    for volume in (np.array(mapped), mapped[1:], mapped[:, ::2], mapped.T):
        sample = VolumeSample(volume, None, SampleKey(0, 0, 0), "name")
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(sample)).volume, volume)  # noqa: S301 - our own


def test_a_source_of_a_thousand_volumes_is_small_on_its_way_to_workers(
    tmp_path: Path, config_of: Callable[..., AttrDict]
) -> None:
    shape = (30, 64, 64)
    np.save(tmp_path / "v.npy", np.zeros(shape, np.uint16))
    entries = [_entry(f"{number:064x}", shape, "v.npy") for number in range(1000)]
    write_manifest(tmp_path / "manifest.csv", entries)
    for kind in (VolumeDataset, SliceDataset):
        source = _source(kind, tmp_path / "manifest.csv")
        assert len(pickle.dumps(source)) < MEGABYTE
        source[0]
        assert len(pickle.dumps(source)) < MEGABYTE  # opening a volume leaves nothing behind
    whole = build_dataset(config_of("stage3_swav", manifest=tmp_path / "manifest.csv"), "TRAIN")
    assert len(pickle.dumps(whole)) < MEGABYTE


class _Views(Dataset[list[Tensor]]):
    """What VISSL's data set does with ours: source, then transform."""

    def __init__(self, manifest: Path) -> None:
        self.source = _source(VolumeDataset, manifest)
        self.transform = VolumeViews(total_num_crops=2, num_slices=16, size=[64, 64])

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> list[Tensor]:
        return self.transform(self.source[index][0])


def test_no_voxel_goes_through_the_pipe_from_a_worker(
    six_volumes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "sizes"

    class Counting(ForkingPickler):
        @classmethod
        def dumps(cls, thing: Any, protocol: int | None = None) -> Any:
            data = ForkingPickler.dumps(thing, protocol)
            with log.open("a") as file:
                file.write(f"{len(data)}\n")
            return data

    monkeypatch.setattr(multiprocessing.queues, "_ForkingPickler", Counting)
    loader = DataLoader(_Views(six_volumes), batch_size=2, num_workers=2, multiprocessing_context="fork")
    for views in loader:
        assert [tuple(view.shape) for view in views] == [(2, 16, 1, 64, 64)] * 2
        assert all(view.is_shared() for view in views)  # their voxels are in shared memory
    sizes = [int(line) for line in log.read_text().split()]
    assert len(sizes) >= 3
    assert max(sizes) < 10_000


# --- nothing grows


def _private(process: int) -> int:
    """Bytes that belong to a process alone; pages of mapped files, which the kernel may drop, do not count."""
    text = Path(f"/proc/{process}/smaps_rollup").read_text()
    found = re.search(r"^Anonymous: +(\d+) kB", text, re.M)
    assert found is not None
    return int(found[1]) * 1024


def _files(process: int) -> int:
    return len(list(Path(f"/proc/{process}/fd").iterdir()))


def _maps(process: int) -> int:
    return Path(f"/proc/{process}/maps").read_text().count(".npy")


def _return_buffers_at_once(_: int) -> None:
    """Map every buffer by itself: glibc's heap else grows for 75 epochs (by 38 MB here) before it stays as it is."""
    mmap_threshold = -3  # malloc.h
    assert ctypes.CDLL(None).mallopt(mmap_threshold, 65536) == 1


@pytest.mark.parametrize("stay", [True, False], ids=["workers stay", "workers are new in each epoch"])
def test_memory_files_and_maps_are_flat_over_epochs(six_volumes: Path, stay: bool) -> None:
    loader = DataLoader(
        _Views(six_volumes),
        batch_size=2,
        num_workers=2,
        persistent_workers=stay,
        multiprocessing_context="fork",
        worker_init_fn=_return_buffers_at_once,
    )
    history, most_maps = [], 0
    for _ in range(14 if stay else 6):
        iterator = iter(loader)
        workers = [worker.pid for worker in iterator._workers] if stay else []
        for _ in iterator:
            most_maps = max([most_maps, *map(_maps, workers)])
        del iterator
        gc.collect()
        history.append([(_private(one), _files(one), _maps(one)) for one in (os.getpid(), *workers)])
    # One epoch's views are 3 MB: two of 16 x 64 x 64 floats for each of six volumes.
    for before, after in zip(history[len(history) // 2 - 1], history[-1], strict=True):
        assert after[0] - before[0] < MEGABYTE
        assert after[1] <= before[1]
        assert after[2] <= max(1, before[2])
    assert most_maps <= 2  # a volume is unmapped when its views are drawn


# --- quarantine


def test_rows_in_quarantine_are_not_trained_on(six_volumes: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_quarantine(six_volumes.parent, {"v1": ("constant", "x"), "v4": ("not_finite", "x"), "old": ("empty", "x")})
    with caplog.at_level(logging.INFO):
        source = _source(VolumeDataset, six_volumes)
    assert [entry.id for entry in source.entries] == ["v0", "v2", "v3", "v5"]
    assert [source[index][0].name for index in range(len(source))] == ["v0", "v2", "v3", "v5"]
    assert {entry.id for entry in _source(SliceDataset, six_volumes).entries} == {"v0", "v2", "v3", "v5"}
    assert "2 of 6 rows are in quarantine" in caplog.text
    assert "1 of 3 ids name no row" in caplog.text


def test_training_does_not_start_when_every_row_is_in_quarantine(six_volumes: Path) -> None:
    write_quarantine(six_volumes.parent, {f"v{number}": ("empty", "") for number in range(6)})
    with pytest.raises(ManifestError, match="all its rows are in quarantine"):
        _source(VolumeDataset, six_volumes)


def test_a_hostile_row_stops_training_at_its_start(six_volumes: Path) -> None:
    text = six_volumes.read_text()
    six_volumes.write_text(text.replace("v3.npy", "../v3.npy"))
    with pytest.raises(ManifestError, match=r"row 5 \('v3'\): path is '../v3.npy', expected a path inside"):
        _source(VolumeDataset, six_volumes)
    (six_volumes.parent / "v3.npy").unlink()
    os.mkfifo(six_volumes.parent / "v3.npy")
    six_volumes.write_text(text)
    source = _source(VolumeDataset, six_volumes)
    with pytest.raises(ManifestError, match=r"v3.npy \(row 'v3'\) is a pipe"):
        source[3]
    assert dataclasses.is_dataclass(source[2][0])
