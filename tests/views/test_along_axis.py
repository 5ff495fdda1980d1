from __future__ import annotations

import pytest
import torch

from vissl_jointssl.views.along_axis import along_axis, gaussian_matrix, slab_matrix


@pytest.mark.parametrize("axis", [-1, -2, -3])
@pytest.mark.parametrize("lead", [(), (2,), (3, 2)])
def test_one_axis_is_mapped_and_the_others_stay(axis: int, lead: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    voxels = torch.rand(*lead, 4, 5, 6, generator=generator)
    matrix = torch.rand(7, voxels.shape[axis], generator=generator, dtype=torch.float64)
    expected = torch.tensordot(voxels.double(), matrix, dims=([axis], [1])).movedim(-1, axis)
    result = along_axis(voxels, matrix, axis)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result.double(), expected, atol=1e-6, rtol=1e-6)
    turned = voxels.transpose(-1, -3).contiguous().transpose(-1, -3)  # not contiguous
    torch.testing.assert_close(along_axis(turned, matrix, axis), result)


@pytest.mark.parametrize(("mirrored", "beyond"), [(True, [2, 1, 1, 2, 3]), (False, [1, 1, 1, 2, 3])])
def test_beyond_the_edge_the_axis_is_mirrored_or_goes_on(mirrored: bool, beyond: list[int]) -> None:
    kernel = [torch.exp(torch.tensor(-0.5 * (step / 1.5) ** 2)).item() for step in range(-2, 3)]
    expected = sum(weight * value for weight, value in zip(kernel, beyond, strict=True)) / sum(kernel)
    blurred = gaussian_matrix(4, 1.5, 2, mirrored=mirrored) @ torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64)
    assert blurred[0].item() == pytest.approx(expected)


def test_slices_farther_apart_than_the_volumes_are_means_of_what_they_cover() -> None:
    near = slab_matrix(4, 2, start=0.25, step=1.0)
    torch.testing.assert_close(near, torch.tensor([[0.75, 0.25, 0, 0], [0, 0.75, 0.25, 0]], dtype=torch.float64))
    far = slab_matrix(4, 1, start=1.0, step=2.0)
    torch.testing.assert_close(far, torch.tensor([[0.25, 0.5, 0.25, 0]], dtype=torch.float64))
