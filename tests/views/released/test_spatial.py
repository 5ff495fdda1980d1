"""Against TorchIO with the same numbers."""

from __future__ import annotations

import pytest
import torch
import torchio

from vissl_jointssl.views.released.parameters import Affine, Anisotropy, Flip
from vissl_jointssl.views.released.spatial import affine, anisotropy, flip

SPACING = (3.0, 0.8, 1.5)


@pytest.mark.parametrize("axes", [(0,), (1,), (0, 2)])
def test_flips_are_torchios(smooth, as_torchio, axes):
    assert torch.equal(flip(smooth, Flip(axes)), torchio.Flip(axes=axes)(as_torchio(smooth)).data)


def test_no_axis_is_no_flip(smooth):
    assert torch.equal(flip(smooth, Flip(())), smooth)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), SPACING])
@pytest.mark.parametrize(
    ("scales", "degrees"),
    [
        ((1.0, 1.0, 1.0), (10.0, 0.0, 0.0)),
        ((1.0, 1.0, 1.0), (0.0, -10.0, 0.0)),
        ((1.0, 1.0, 1.0), (0.0, 0.0, 10.0)),
        ((0.9, 1.1, 1.05), (0.0, 0.0, 0.0)),
        ((0.93, 1.07, 1.02), (7.0, -9.0, 4.0)),
    ],
)
def test_affine_maps_are_torchios_in_millimetres(smooth, as_torchio, spacing, scales, degrees):
    expected = torchio.Affine(scales=scales, degrees=degrees, translation=(0, 0, 0))(as_torchio(smooth, spacing))
    result = affine(smooth, Affine(scales, degrees), spacing)
    torch.testing.assert_close(result, expected.data, atol=2e-6, rtol=0)


def test_what_an_affine_map_brings_from_outside_is_each_channels_minimum():
    volume = torch.stack([torch.full((6, 8, 8), 0.4), torch.full((6, 8, 8), 0.9)])
    volume[0, 3, 4, 4], volume[1, 3, 4, 4] = 0.1, 0.7
    shrunk = affine(volume, Affine((0.5, 0.5, 0.5), (0.0, 0.0, 0.0)), (1.0, 1.0, 1.0))
    assert shrunk[:, 0, 0, 0].tolist() == pytest.approx([0.1, 0.7])


# Not at ties: where a coarse sample ends on a voxel, floating point decides, here and in ITK.
@pytest.mark.parametrize("factor", [1.53, 2.37, 3.3, 4.9])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_anisotropy_is_torchios(smooth, as_torchio, axis, factor):
    expected = torchio.RandomAnisotropy(axes=(axis,), downsampling=(factor, factor))(as_torchio(smooth))
    result = anisotropy(smooth, Anisotropy(axis, factor))
    torch.testing.assert_close(result, expected.data, atol=2e-6, rtol=0)


def test_an_axis_shorter_than_the_factor_keeps_its_middle_voxel():
    volume = torch.tensor([0.2, 0.5, 0.8]).view(1, 3, 1, 1)
    assert anisotropy(volume, Anisotropy(0, 5.0)).flatten().tolist() == pytest.approx([0.5, 0.5, 0.5])
