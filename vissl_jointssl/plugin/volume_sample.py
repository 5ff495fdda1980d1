"""What `volume_dataset` hands to `volume_views` and `volume_centre_view`: a volume and what its views depend on."""

from __future__ import annotations

import mmap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vissl_jointssl.views import SampleKey


@dataclass(frozen=True)
class VolumeSample:
    """One volume of a data set, as it lies on disk.

    Sent to another process, it is the place of the volume's file that travels, and the file is mapped again there:
    NumPy would pickle a mapped array voxel by voxel, hundreds of MB for a CT.

    Attributes:
        volume: `(F, H, W)` or `(C, F, H, W)`, memory-mapped.
        spacing: Size of a voxel along (F, H, W), mm, or None where unknown.
        key: What its views are drawn from.
        name: Its name in the manifest, for messages.
    """

    volume: np.ndarray
    spacing: tuple[float, float, float] | None
    key: SampleKey
    name: str

    def __reduce__(self) -> tuple[Callable[..., VolumeSample], tuple[Any, ...]]:
        volume, rest = self.volume, (self.spacing, self.key, self.name)
        if not (isinstance(volume, np.memmap) and isinstance(volume.base, mmap.mmap)):  # in memory, or a part of a map
            return VolumeSample, (volume, *rest)
        order = "C" if volume.flags.c_contiguous else "F"
        return _map_again, (volume.filename, volume.dtype, volume.offset, volume.shape, order, *rest)


def _map_again(
    path: Path, dtype: np.dtype, offset: int, shape: tuple[int, ...], order: Any, *rest: Any
) -> VolumeSample:
    return VolumeSample(np.memmap(path, dtype, "r", offset, shape, order), *rest)
