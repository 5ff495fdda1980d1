"""A scan with its labels: cropped, resampled, windowed, and whole or cut to regions or patches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vissl_jointssl.manifest import Grid
from vissl_jointssl.preparation.errors import ReadError
from vissl_jointssl.preparation.processing.cropping import body_box, cropped_affine
from vissl_jointssl.preparation.processing.intensity import foreground, guess_modality, percentile_window, window
from vissl_jointssl.preparation.processing.label_maps import read_label_maps
from vissl_jointssl.preparation.processing.patches import cut_patch, patch_starts
from vissl_jointssl.preparation.processing.piece import Piece
from vissl_jointssl.preparation.processing.resampling import resample, resampled_affine, resampled_shape
from vissl_jointssl.preparation.processing.tiling import dominant_label, tiles
from vissl_jointssl.preparation.reading import read_labels, read_scan
from vissl_jointssl.preparation.recipe import Options, Source
from vissl_jointssl.preparation.scan import Scan

_FEW_VALUES = 16
_NO_PLACE = "give it in a format that says it, such as NIfTI, or leave"


@dataclass(frozen=True)
class _Volume:
    """A volume on its way: channels `(C, F, H, W)` and what lies on the same grid."""

    channels: np.ndarray
    labels: np.ndarray | None
    body: np.ndarray | None
    affine: np.ndarray
    spacing: tuple[float, float, float] | None


def volume_pieces(source: Source, root: Path, options: Options) -> Iterator[Piece]:
    """Yield the pieces of a scan.

    Raises:
        ReadError: If a file is at fault, the modality does not fit, a patch is outside, or no region holds body.
    """
    path = root / source.path
    files, others = ([root / name for name in names] for names in (source.files, source.channel_paths))
    scan = read_scan(path, options.slice_axis, files=files, channel_paths=others)
    if scan.spacing is None and options.spacing is not None:
        raise ReadError(path, "does not say how large its voxels are", f"{_NO_PLACE} spacing out", "geometry")
    if scan.geometry != "place" and source.patches:
        raise ReadError(path, "does not say where its voxels are", f"{_NO_PLACE} patches out", "geometry")
    by_voxel = source.labels_by_voxel
    labels = read_label_maps(source, root, lambda file: read_labels(file, scan, options.slice_axis, by_voxel=by_voxel))
    modality = source.modality or scan.modality or guess_modality(scan.array)
    volumes, notes = _volumes(scan, source, options)
    for suffix, array in volumes:
        first, limits = _first_steps(array, scan, labels, modality, options, crop=not source.patches)
        volume = _resampled(first, options)
        stored = np.stack(
            [
                window(channel, *limit, stored_type=options.stored_type)
                for channel, limit in zip(volume.channels, limits, strict=True)
            ]
        )
        for number, (channel, limit) in enumerate(zip(stored, limits, strict=True)):
            if channel.min() == channel.max():
                which = f"of channel {number} " if len(stored) > 1 else ""
                reason = f"every voxel {which}falls on one side of the window {limit} of {modality}"
                next_step = "check the modality: CT is expected in Hounsfield units"
                raise ReadError(path, reason, next_step, "intensity")
        whole = Piece(
            suffix=suffix,
            array=stored if array.ndim == 4 else stored[0],
            labels=volume.labels,
            label=source.label,
            modality=modality,
            spacing=_rounded(volume.spacing),
            grid=None if scan.spacing is None else Grid(volume.affine, scan.source_affine, scan.source_shape),
            notes=notes,
        )
        if source.patches:
            yield from _patches(whole, source, volume.affine, options, path)
        elif options.tile_size is not None:
            yield from _regions(whole, volume.body, options, path)
        else:
            yield whole


def _volumes(scan: Scan, source: Source, options: Options) -> tuple[list[tuple[str, np.ndarray]], tuple[str, ...]]:
    """What a file of three or four axes becomes, by the suffix of its rows, and the notes."""
    notes = list(scan.notes)
    array = scan.array
    volumes = [("", array)]
    if array.ndim == 4 and not source.channel_paths:
        if options.fourth_axis == "volumes":
            volumes = [(f"-t{number:04d}", volume) for number, volume in enumerate(array)]
        elif options.fourth_axis == "first":
            volumes = [("", array[0])]
            notes.append(f"holds {len(array)} volumes; the first is taken (--fourth-axis takes all)")
    frames = volumes[0][1].reshape(-1, *array.shape[-2:])
    if len(np.unique(frames[:: max(1, len(frames) // 8)])) < _FEW_VALUES:  # some slices tell it in no time
        notes.append("holds so few different values that it looks like a label map, not a scan; taken as one")
    return volumes, tuple(notes)


def _first_steps(
    array: np.ndarray, scan: Scan, labels: np.ndarray | None, modality: str, options: Options, *, crop: bool
) -> tuple[_Volume, list[tuple[float, float]]]:
    """Window of each channel and place of the body, both told before anything is cut or smoothed."""
    channels = array if array.ndim == 4 else array[None]
    limits = [
        options.ct_window if modality == "CT" else percentile_window(channel, modality, options.percentiles)
        for channel in channels
    ]
    body, affine = None, scan.affine
    crop = crop and options.crop_foreground
    if crop or (options.tile_size is not None and options.minimum_foreground > 0):
        body = np.zeros(channels.shape[1:], dtype=bool)
        for channel in channels:
            body |= foreground(channel, modality)
    if crop and body is not None:
        box = body_box(body, labels)
        channels, body, affine = channels[:, *box], body[box], cropped_affine(affine, box)
        labels = None if labels is None else labels[..., *box]
    return _Volume(channels, labels, body, affine, scan.spacing), limits


def _resampled(volume: _Volume, options: Options) -> _Volume:
    if options.spacing is None or volume.spacing is None:
        return volume
    old = volume.channels.shape[1:]
    shape = resampled_shape(old, volume.spacing, options.spacing)
    first, second, third = (size * was / now for size, was, now in zip(volume.spacing, old, shape, strict=True))
    labels = volume.labels
    if labels is not None and labels.ndim == 4:
        labels = np.stack([resample(plane, shape, labels=True) for plane in labels])
    elif labels is not None:
        labels = resample(labels, shape, labels=True)
    return _Volume(
        channels=np.stack([resample(channel, shape) for channel in volume.channels]),
        labels=labels,
        body=None if volume.body is None else resample(volume.body, shape, labels=True),
        affine=resampled_affine(volume.affine, old, shape),
        spacing=(first, second, third),
    )


def _regions(whole: Piece, body: np.ndarray | None, options: Options, path: Path) -> Iterator[Piece]:
    size = options.tile_size or (1, 1, 1)
    kept = 0
    for number, region in enumerate(tiles(whole.array.shape[-3:], size, options.tile_stride or size)):
        if body is not None and float(body[region].mean()) < options.minimum_foreground:
            continue
        kept += 1
        labels = None if whole.labels is None else whole.labels[..., *region]
        label = whole.label
        if labels is not None and label is None:
            winner = dominant_label(labels, options.region_share, options.region_margin)
            label = None if winner is None else winner - 1
        suffix = f"{whole.suffix}-r{number:04d}"
        array = whole.array[..., *region]
        yield Piece(suffix, array, labels, label, whole.modality, whole.spacing, notes=whole.notes)
    if kept == 0:
        reason = f"no region has {options.minimum_foreground:.0%} of voxels that are not air"
        raise ReadError(path, reason, "check the modality, or lower minimum_foreground", "intensity")


def _patches(whole: Piece, source: Source, affine: np.ndarray, options: Options, path: Path) -> Iterator[Piece]:
    size = options.patch_size or (1, 1, 1)
    starts = patch_starts(source.patches, affine, whole.array.shape, size, path)
    for number, (patch, start) in enumerate(zip(source.patches, starts, strict=True)):
        labels = None if whole.labels is None else cut_patch(whole.labels, start, size)
        label = whole.label if patch.label is None else patch.label
        suffix = f"{whole.suffix}-p{number:05d}"
        array = cut_patch(whole.array, start, size)
        yield Piece(suffix, array, labels, label, whole.modality, whole.spacing, notes=whole.notes)


def _rounded(spacing: tuple[float, float, float] | None) -> tuple[float, float, float] | None:
    return None if spacing is None else (round(spacing[0], 4), round(spacing[1], 4), round(spacing[2], 4))
