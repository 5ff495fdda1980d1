"""Against PyTorch's own sampling of volumes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from vissl_jointssl.views.released.trilinear import SLICES_AT_ONCE, sample_trilinear

# Not round: of a place right on the volume's edge, floating point decides whether it is inside.
TURN = torch.tensor(
    [[1.1013, 0.2071, -0.1039], [-0.1527, 0.9041, 0.3059], [0.1083, -0.2017, 1.2091]], dtype=torch.float64
)


def _by_grid_sample(volume: Tensor, matrix: Tensor) -> Tensor:
    shape = volume.shape[1:]
    half = torch.tensor(shape, dtype=torch.float64) / 2
    theta = (matrix * half[None, :] / half[:, None]).flip(0, 1)  # grid_sample names points (x, y, z) = (W, H, F)
    theta = torch.cat([theta, torch.zeros(3, 1, dtype=torch.float64)], dim=1)[None]
    grid = functional.affine_grid(theta, [1, 1, *shape], align_corners=False)
    moved = functional.grid_sample(volume[None].double(), grid, padding_mode="border", align_corners=False)[0]
    inside = (grid[0].abs() <= 1).all(dim=-1)
    return torch.where(inside, moved, volume.double().amin(dim=(1, 2, 3), keepdim=True))


@pytest.mark.parametrize(
    "shape", [(1, 3 * SLICES_AT_ONCE + 1, 21, 18), (2, 5, 7, 9), (1, 1, 6, 5), (1, 4, 1, 5), (2, 3, 6, 1), (1, 1, 1, 1)]
)
def test_any_map_of_any_shape(shape: tuple[int, ...]) -> None:
    volume = torch.rand(shape, generator=torch.Generator().manual_seed(0)) - 0.5
    result = sample_trilinear(volume, TURN)
    torch.testing.assert_close(result.double(), _by_grid_sample(volume, TURN), atol=1e-5, rtol=0)
    other = volume.transpose(-1, -2).contiguous().transpose(-1, -2)  # in another order in memory
    assert torch.equal(sample_trilinear(other, TURN), result)


def test_no_motion_is_the_volume() -> None:
    volume = torch.rand(2, 6, 7, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(sample_trilinear(volume, torch.eye(3, dtype=torch.float64)), volume)
