"""What `volume_dataset` hands to `volume_views` and `volume_centre_view`: a volume and what its views depend on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vissl_jointssl.views import SampleKey


@dataclass(frozen=True)
class VolumeSample:
    """One volume of a data set, as it lies on disk.

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
