"""The launcher with views that turn infinite: volume 2's in the first epoch, everybody's in the second.

Run as a program with Hydra overrides; spawned ranks execute it too, and so are poisoned alike.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vissl_jointssl.plugin.launch import command_line
from vissl_jointssl.plugin.volume_sample import VolumeSample
from vissl_jointssl.plugin.volume_views import VolumeViews

_healthy = VolumeViews.__call__


def _poisoned(self: VolumeViews, sample: VolumeSample) -> list[Tensor]:
    views = _healthy(self, sample)
    if sample.key.epoch == 1 or sample.name == "volume2":
        views[0][0, 0, 5, 5] = torch.inf
    return views


VolumeViews.__call__ = _poisoned

if __name__ == "__main__":
    command_line()
