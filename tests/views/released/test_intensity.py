"""Against TorchIO with the same numbers."""

from __future__ import annotations

import pytest
import torch
import torchio

from vissl_jointssl.views.released.intensity import bias_field, blur, gamma, noise
from vissl_jointssl.views.released.parameters import BiasField, Blur, Gamma, Noise

SPACING = (3.0, 0.8, 1.5)


def test_noise_is_torchios_of_the_same_seed(smooth, as_torchio):
    expected = torchio.Noise(mean=0, std=0.2, seed=7)(as_torchio(smooth)).data
    torch.testing.assert_close(noise(smooth, Noise(0.2, seed=7)), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("deviations", [(1.2, 0.0, 1.9), (2.0, 2.0, 2.0), (0.01, 0.3, 1.0)])
def test_blur_is_torchios_in_millimetres(smooth, as_torchio, deviations):
    expected = torchio.Blur(std=deviations)(as_torchio(smooth)).data
    torch.testing.assert_close(blur(smooth, Blur(deviations), SPACING), expected, atol=2e-6, rtol=0)


def test_a_blur_may_reach_farther_than_the_volume(smooth, as_torchio):
    small = smooth[:, :3, :2, :5]
    expected = torchio.Blur(std=(40.0, 9.0, 5.0))(as_torchio(small)).data
    torch.testing.assert_close(blur(small, Blur((40.0, 9.0, 5.0)), SPACING), expected, atol=2e-6, rtol=0)


def test_the_bias_field_is_torchios(smooth, as_torchio):
    coefficients = (torch.rand(20, generator=torch.Generator().manual_seed(1)) - 0.5).tolist()
    expected = torchio.transforms.BiasField(coefficients=coefficients, order=3)(as_torchio(smooth)).data
    result = bias_field(smooth, BiasField(tuple(coefficients)))
    torch.testing.assert_close(result, expected, atol=0, rtol=2e-6)


def test_a_bias_field_does_not_vary_along_an_axis_of_one_voxel():
    slope = BiasField(tuple(float(index == 10) for index in range(20)))  # F alone
    assert torch.equal(bias_field(torch.ones(1, 1, 2, 2), slope), torch.ones(1, 1, 2, 2))
    along = bias_field(torch.ones(1, 3, 1, 1), slope).flatten()
    torch.testing.assert_close(along.log(), torch.tensor([-1.0, 0.0, 1.0]))


def test_gamma_is_torchios_for_negative_values_too(smooth, as_torchio):
    shifted = smooth - 0.4
    expected = torchio.Gamma(gamma=[0.8, 1.3])(as_torchio(shifted)).data
    torch.testing.assert_close(gamma(shifted, Gamma((0.8, 1.3))), expected, atol=1e-6, rtol=0)
