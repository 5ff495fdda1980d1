"""`jointssl speed loader`: reading crops from our cache, against nibabel and TorchIO on the same scans."""

from __future__ import annotations

import importlib.util
import logging
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vissl_jointssl.manifest import Manifest
from vissl_jointssl.preparation.pipeline import prepare
from vissl_jointssl.preparation.recipe import Recipe, Source
from vissl_jointssl.speed.crop_readers import CONTESTANTS, OURS, check_same, slices_from_cache
from vissl_jointssl.speed.loader_table import loader_table
from vissl_jointssl.speed.measures import Settings
from vissl_jointssl.speed.reading_rate import volumes_per_second
from vissl_jointssl.speed.synthetic_ct import write_synthetic_ct
from vissl_jointssl.speed.timing import machine, time_by_turns
from vissl_jointssl.speed.volume_pairs import draw_crop, pair_volume

CROP_SIZE = (64, 128, 128)  # F, H, W of the views that the paper trains on
SYNTHETIC_SHAPE = (384, 384, 160)  # columns, rows, slices of a routine CT
WORKERS = (0, 2)
PACKAGES = ("nibabel", "numpy", "torch", "torchio")
_SEED = 0
_log = logging.getLogger(__name__)


def measure(settings: Settings) -> dict[str, Any]:
    """As `measure_loader`; every way is timed once for each crop."""
    return measure_loader(settings.folder, settings.volumes, settings.crops)


def table(measured: Mapping[str, Any]) -> str:
    """As `loader_table`."""
    return loader_table(measured)


def ratios(measured: Mapping[str, Any]) -> dict[str, float]:
    """How many times as fast as nibabel's faster way a crop is read."""
    return {"crop_speedup": measured["times_as_fast"]["nibabel"]}


def measure_loader(
    folder: Path | None = None,
    volumes: int = 4,
    crops: int = 24,
    *,
    crop_size: tuple[int, int, int] = CROP_SIZE,
    synthetic_shape: tuple[int, int, int] = SYNTHETIC_SHAPE,
) -> dict[str, Any]:
    """Prepare scans, then read the same random crops in every way, in turns, and check that they are the same.

    The page cache is warm: every file was read before. Times are of one process, without workers or views.

    Args:
        folder: Holds `.nii.gz` files, at any depth, one 3D volume each. None makes CT-like ones.
        volumes: How many are measured; of a folder, the first in order of path.
        crops: How many boxes in all.
        crop_size: (F, H, W) of a box.
        synthetic_shape: (i, j, k) of the scans that are made.

    Returns:
        What `loader_table` shows; the README of its keys is docs/speed.md.

    Raises:
        ValueError: If a number is not positive, TorchIO is missing, the folder holds no scan, a scan cannot be
            measured, or a contestant gave other voxels.
    """
    for name, number in (("volumes", volumes), ("crops", crops)):
        if number < 1:
            raise ValueError(f"{name} is {number}; expected at least 1")
    if importlib.util.find_spec("torchio") is None:
        raise ValueError("torchio is not installed, and it is what we are measured against; pip install torchio")
    with tempfile.TemporaryDirectory(prefix="jointssl-speed-") as name:
        scratch = Path(name)
        if folder is None:
            folder = scratch / "scans"
            _make_scans(folder, volumes, synthetic_shape)
            origin = "made by the program"
        else:
            origin = "given"
        scans = _find_scans(folder, volumes)
        manifest, seconds = _prepare(folder, scans, scratch / "cache")
        pairs = [pair_volume(*row) for row in zip(scans, [manifest] * len(scans), manifest.entries, strict=True)]
        rng = np.random.default_rng(_SEED)
        boxes = [draw_crop(pairs[number % len(pairs)], crop_size, rng) for number in range(crops)]
        _log.info("reading %d crops in %d ways", crops, len(CONTESTANTS))
        time_by_turns(CONTESTANTS, boxes[:1], check_same)  # imports, and what else happens once
        timings = time_by_turns(CONTESTANTS, boxes, check_same)
        slices = time_by_turns({"slices": slices_from_cache}, boxes, lambda crop, results: None)["slices"]
        rates = {str(workers): volumes_per_second(boxes, workers) for workers in WORKERS}
    ours = timings[OURS].median
    fastest_nibabel = min(timings["nibabel_whole"].median, timings["nibabel_sliced"].median)
    return {
        "what": "loader",
        "machine": machine(PACKAGES),
        "scans": {"origin": origin, "count": len(scans), "shapes": sorted({entry.shape for entry in manifest.entries})},
        "crop": {"size": crop_size, "count": crops},
        "page_cache": "warm",
        "seconds_per_crop": {name: timing.summary() for name, timing in timings.items()},
        "seconds_per_whole_slices": slices.summary(),
        "times_as_fast": {"nibabel": fastest_nibabel / ours, "torchio": timings["torchio"].median / ours},
        "preparing": {"volumes_per_second_per_core": len(scans) / seconds},
        "reading": {"volumes_per_second_per_core": {count: rate / max(1, int(count)) for count, rate in rates.items()}},
    }


def _make_scans(folder: Path, count: int, shape: tuple[int, int, int]) -> None:
    _log.info("making %d CT-like scans of %s voxels", count, " x ".join(map(str, shape)))
    folder.mkdir()
    for number in range(count):
        write_synthetic_ct(folder / f"ct{number:03d}.nii.gz", shape, seed=number)


def _find_scans(folder: Path, count: int) -> list[Path]:
    if not folder.is_dir():
        raise ValueError(f"{folder}: is not a folder; give one with .nii.gz files, or none, and scans are made")
    scans = sorted(path for path in folder.rglob("*.nii.gz") if path.is_file() and not path.name.startswith("."))
    if not scans:
        raise ValueError(f"{folder}: holds no .nii.gz file; give a folder that does, or none, and scans are made")
    _log.info("%d of the %d .nii.gz files are measured", len(scans[:count]), len(scans))
    return scans[:count]


def _prepare(folder: Path, scans: Sequence[Path], cache: Path) -> tuple[Manifest, float]:
    """The cache, one row per scan in their order, and how many seconds one core took."""
    sources = tuple(
        Source(f"scan{number:05d}", scan.relative_to(folder).as_posix(), patient=f"patient{number:05d}")
        for number, scan in enumerate(scans)
    )
    _log.info("preparing them")
    start = time.perf_counter()
    manifest = prepare(Recipe("speed", folder, sources), cache, jobs=1)
    return manifest, time.perf_counter() - start
