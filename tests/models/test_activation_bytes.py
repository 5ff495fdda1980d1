from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import resnet

from vissl_jointssl.models.activation_bytes import activation_bytes
from vissl_jointssl.models.slice_encoder import PAPER_LEVELS, SliceEncoder, feature_maps


def counted(blocks: nn.ModuleDict, images: Tensor) -> int:
    """Bytes of all tensors that autograd saves in a forward pass, but for weights, statistics and the images."""
    known = {tensor.untyped_storage().data_ptr() for tensor in [images, *blocks.parameters(), *blocks.buffers()]}
    saved: dict[int, tuple[Tensor, int]] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known and tensor.dim() == 4:
            saved[storage.data_ptr()] = (tensor, storage.nbytes())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        maps = feature_maps(blocks, images, PAPER_LEVELS)
    assert maps
    return sum(size for _, size in saved.values())


@pytest.mark.parametrize("sides", [(64, 64), (50, 71)])
def test_it_is_what_autograd_saves(sides: tuple[int, int]) -> None:
    blocks = SliceEncoder().blocks
    assert activation_bytes(blocks, 2, *sides) == counted(blocks, torch.rand(2, 3, *sides))


def test_it_is_what_autograd_saves_of_another_resnet_in_another_precision() -> None:
    network = resnet.ResNet(resnet.Bottleneck, [1, 2, 2, 1], width_per_group=128).double()
    last = network.layer4[0]  # VISSL's LAYER4_STRIDE=1
    last.stride, last.conv2.stride, last.downsample[0].stride = 1, (1, 1), (1, 1)
    names = {"conv1": "conv1", "bn1": "bn1", "conv1_relu": "relu", "maxpool": "maxpool"}
    names |= {name: name for name in ("layer1", "layer2", "layer3", "layer4")}
    blocks = nn.ModuleDict({ours: getattr(network, theirs) for ours, theirs in names.items()})
    images = torch.rand(1, 3, 64, 64, dtype=torch.float64)
    assert activation_bytes(blocks, 1, 64, 64, number_bytes=8) == counted(blocks, images)


def test_stage_3_of_the_paper_at_224_does_not_fit_40_gb_in_single_precision() -> None:
    with torch.device("meta"):
        blocks = SliceEncoder().blocks
    slices = 6 * 2 * 64  # volumes, views, F
    assert activation_bytes(blocks, slices, 224, 224) > 60e9
    assert activation_bytes(blocks, slices, 224, 224, number_bytes=2) == pytest.approx(33e9, rel=0.05)
