"""Ways to get one crop of a scan as `(F, H, W)` float32 in [0, 1]."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from vissl_jointssl.manifest import as_unit_interval
from vissl_jointssl.speed.volume_pairs import Crop
from vissl_jointssl.views import ViewParameters, window

OURS = "cache"
TOLERANCE = 2e-3  # of [0, 1]; half a step of uint8 and the rounding of what stored it, far below any other box's noise


def from_cache(crop: Crop) -> np.ndarray:
    """As training reads it, see `plugin/volume_views.py`: open the mapping, cut the view's window, make it float32."""
    return as_unit_interval(window(crop.pair.manifest.open(crop.pair.entry), crop.parameters))


def slices_from_cache(crop: Crop) -> np.ndarray:
    """As `from_cache` for a view of the family `crop`, the default: whole slices, which it cuts and resizes later."""
    box = crop.parameters
    view = ViewParameters(box.size, box.num_slices, first_slice=box.first[0], slices=box.kept[0])
    return as_unit_interval(window(crop.pair.manifest.open(crop.pair.entry), view))


def from_whole_file(crop: Crop) -> np.ndarray:
    """Nibabel unpacks the scan, and the box is cut out."""
    import nibabel

    image: Any = nibabel.load(crop.pair.path)
    return crop.pair.unit_slices(np.asanyarray(image.dataobj)[crop.file_box])


def from_sliced_file(crop: Crop) -> np.ndarray:
    """Nibabel is asked for the box alone; it still has to unpack what lies before it."""
    import nibabel

    image: Any = nibabel.load(crop.pair.path)
    return crop.pair.unit_slices(np.asanyarray(image.dataobj[crop.file_box]))


def from_torchio(crop: Crop) -> np.ndarray:
    """TorchIO loads the scan as a `Subject`, and the box is cut out."""
    import torchio

    subject: Any = torchio.Subject(image=torchio.ScalarImage(crop.pair.path))
    subject.load()
    return crop.pair.unit_slices(subject["image"].data[(0, *crop.file_box)].numpy())


CONTESTANTS: Mapping[str, Callable[[Crop], np.ndarray]] = {
    OURS: from_cache,
    "nibabel_whole": from_whole_file,
    "nibabel_sliced": from_sliced_file,
    "torchio": from_torchio,
}


def check_same(crop: Crop, results: Mapping[str, np.ndarray]) -> None:
    """Raise where a contestant read other voxels: a time for the wrong data says nothing.

    Raises:
        ValueError: With the contestant and how far off it is.
    """
    ours = results[OURS]
    for name, other in results.items():
        if other.shape != ours.shape or other.dtype != np.float32:
            raise ValueError(f"{name} gave {other.shape} of {other.dtype}, the cache {ours.shape} of float32")
        distance = float(np.abs(other - ours).max())
        if not distance <= TOLERANCE:
            raise ValueError(f"{name} gave other grey values than the cache: they differ by up to {distance:.3g}")
