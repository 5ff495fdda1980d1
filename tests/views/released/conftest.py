from __future__ import annotations

import numpy as np
import pytest
import torch
import torchio
from scipy import ndimage
from torch import Tensor

SPACING = (3.0, 0.8, 1.5)


@pytest.fixture(scope="session")
def smooth() -> Tensor:
    """Two channels (2, F, H, W) of unlike, odd and even lengths, smooth as anatomy is."""
    values = torch.rand(2, 14, 21, 18, generator=torch.Generator().manual_seed(0)).numpy()
    return torch.from_numpy(ndimage.gaussian_filter(values, (0, 1, 1, 1)))


@pytest.fixture(scope="session")
def as_torchio():
    """TorchIO's image of a volume (C, F, H, W): its axes 0, 1, 2 are F, H, W."""

    def make(volume: Tensor, spacing: tuple[float, float, float] = SPACING):
        return torchio.ScalarImage(tensor=volume, affine=np.diag([*spacing, 1.0]))

    return make
