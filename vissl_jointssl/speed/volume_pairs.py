"""One scan twice, as `.nii.gz` and as a row of the cache, and crops that are the same in both."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vissl_jointssl.manifest import Entry, Manifest, as_unit_interval
from vissl_jointssl.preparation.processing.orientation import to_slices
from vissl_jointssl.views import ReleasedViewParameters

_STEP = 4  # of the voxels that the grey values are fitted on


@dataclass(frozen=True)
class VolumePair:
    """A scan in both forms, and how one follows from the other.

    Attributes:
        path: The `.nii.gz`.
        manifest: Of the cache.
        entry: The row.
        axes: Which axis of the file is F, H and W.
        reversed: Whether it runs the other way.
        scale: (slope, intercept) from the file's values to [0, 1], before clipping.
    """

    path: Path
    manifest: Manifest
    entry: Entry
    axes: tuple[int, ...]
    reversed: tuple[bool, ...]
    scale: tuple[float, float]

    def unit_slices(self, values: np.ndarray) -> np.ndarray:
        """A box of the file `(i, j, k)` as the cache has it: `(F, H, W)` float32 in [0, 1]."""
        turned = values.transpose(self.axes)[tuple(slice(None, None, -1 if back else 1) for back in self.reversed)]
        unit = turned.astype(np.float32)
        unit *= np.float32(self.scale[0])
        unit += np.float32(self.scale[1])
        return np.clip(unit, 0, 1, out=unit)


@dataclass(frozen=True)
class Crop:
    """A box of a volume.

    Attributes:
        pair: The volume.
        parameters: The view that needs this box and nothing else, as training draws them.
    """

    pair: VolumePair
    parameters: ReleasedViewParameters

    @property
    def file_box(self) -> tuple[slice, ...]:
        """The box along the file's own axes."""
        box = [slice(0, 0)] * 3
        for place, (axis, back) in enumerate(zip(self.pair.axes, self.pair.reversed, strict=True)):
            first, kept = self.parameters.first[place], self.parameters.kept[place]
            start = self.pair.entry.shape[place] - first - kept if back else first
            box[axis] = slice(start, start + kept)
        return tuple(box)


def pair_volume(path: Path, manifest: Manifest, entry: Entry) -> VolumePair:
    """Find out how a row was made from its file.

    Raises:
        ValueError: If the file is not one 3D volume of the row's size, or its grey values are no window of the file's.
    """
    import nibabel

    image: Any = nibabel.load(path)
    if len(image.shape) != 3:
        raise ValueError(f"{path}: has shape {image.shape}; the loader is measured on one 3D volume per file")
    turned, affine = to_slices(np.asanyarray(image.dataobj), image.affine, "axial")
    if turned.shape != entry.shape:
        raise ValueError(f"{path}: has {turned.shape} voxels, its row {entry.shape}; measure scans kept as they are")
    steps = np.rint(np.linalg.inv(image.affine) @ affine)  # index (f, h, w) to index (i, j, k)
    axes = tuple(int(axis) for axis in np.abs(steps[:3, :3]).argmax(axis=0))
    back = tuple(bool(steps[axis, place] < 0) for place, axis in enumerate(axes))
    some = (slice(None, None, _STEP),) * 3
    scale = _fit(turned[some], as_unit_interval(manifest.open(entry)[some]), path)
    return VolumePair(path, manifest, entry, axes, back, scale)


def draw_crop(pair: VolumePair, size: tuple[int, int, int], rng: np.random.Generator) -> Crop:
    """A random box `(F, H, W)`; a volume that is smaller is taken whole, as training does, whose views then pad."""
    depth, height, width = (min(sides) for sides in zip(pair.entry.shape, size, strict=True))
    f, h, w = (
        int(rng.integers(length - kept + 1))
        for length, kept in zip(pair.entry.shape, (depth, height, width), strict=True)
    )
    parameters = ReleasedViewParameters(
        size=size[1:], num_slices=size[0], first=(f, h, w), kept=(depth, height, width), before=(0, 0, 0)
    )
    return Crop(pair, parameters)


def _fit(values: np.ndarray, unit: np.ndarray, path: Path) -> tuple[float, float]:
    """Slope and intercept of the window, from the voxels that it does not clip."""
    inside = (unit > 0) & (unit < 1)
    chosen = values[inside].astype(np.float64)
    if chosen.size < 2 or chosen.min() == chosen.max():
        raise ValueError(f"{path}: its window clips nearly every voxel; measure other scans, or name their modality")
    slope, intercept = np.polyfit(chosen, unit[inside].astype(np.float64), 1)
    return float(slope), float(intercept)
