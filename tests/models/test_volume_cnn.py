"""The 3D baselines' network."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torchvision.models.video import r3d_18

from vissl_jointssl.models.volume_cnn import WIDTH, VolumeCNN


@pytest.fixture(scope="module")
def network() -> VolumeCNN:
    torch.manual_seed(0)
    return VolumeCNN().eval()


@pytest.fixture(scope="module")
def volumes() -> Tensor:
    return torch.randn(2, 6, 1, 32, 32, generator=torch.Generator().manual_seed(0))


def test_it_is_torchvisions_network_but_for_the_stem(network: VolumeCNN, volumes: Tensor) -> None:
    # The same grey volume in all three colours, each with a third of the stem: one linear map.
    theirs = r3d_18(weights=None).eval()
    theirs.fc = torch.nn.Identity()
    weights = network.state_dict()
    theirs.load_state_dict({**weights, "stem.0.weight": weights["stem.0.weight"].expand(-1, 3, -1, -1, -1) / 3})
    video = volumes.movedim(1, 2).expand(-1, 3, -1, -1, -1)  # (B, 3, F, H, W)
    with torch.no_grad():
        torch.testing.assert_close(network(volumes), theirs(video), atol=1e-5, rtol=1e-5)


def test_it_gives_512_numbers_a_volume_and_every_weight_a_gradient(volumes: Tensor) -> None:
    torch.manual_seed(0)
    network = VolumeCNN().train()
    embeddings = network(volumes)
    assert embeddings.shape == (2, WIDTH)
    embeddings.square().sum().backward()
    # DDP fails on a trainable weight without one
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in network.parameters())


def test_a_missing_slice_is_zero(network: VolumeCNN, volumes: Tensor) -> None:
    missing, zero = volumes.clone(), volumes.clone()
    missing[1, 4:] = float("nan")
    zero[1, 4:] = 0
    with torch.no_grad():
        found = network(missing)
        assert torch.equal(found, network(zero))
    assert torch.isfinite(found).all()


def test_gradients_of_a_padded_volume_are_finite(volumes: Tensor) -> None:
    torch.manual_seed(0)
    network = VolumeCNN().train()
    missing = volumes.clone()
    missing[1, 4:] = float("nan")
    network(missing).sum().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in network.parameters() if parameter.grad is not None)


def test_what_is_no_batch_of_grey_volumes_is_refused(network: VolumeCNN, volumes: Tensor) -> None:
    with pytest.raises(ValueError, match="reads 1 channel, got 4; choose one, for example one sequence of an MRI"):
        network(volumes.expand(-1, -1, 4, -1, -1))
    with pytest.raises(ValueError, match=r"has the shape \(B, F, C, H, W\), got \(2, 1, 32, 32\)"):
        network(volumes[:, 0])
    with pytest.raises(ValueError, match=r"volumes \[0, 1\] of the batch have no valid slice"):
        network(torch.full_like(volumes, float("nan")))
