"""How much a ResNet keeps from the forward to the backward pass, without running it."""

from __future__ import annotations

from typing import cast

from torch import nn
from torchvision.models.resnet import Bottleneck

LAYERS = ("layer1", "layer2", "layer3", "layer4")
INDEX_BYTES = 8  # of the max pooling


def activation_bytes(blocks: nn.ModuleDict, slices: int, height: int, width: int, number_bytes: int = 4) -> int:
    """Bytes of the maps that the backward pass of f_intra needs.

    BatchNorm keeps what the convolution before it gave, ReLU what it gave itself; the convolutions and the sums add
    nothing to that. A ResNet-50 keeps 426 numbers per pixel of its input.

    Args:
        blocks: Of a ResNet of bottlenecks, named as in VISSL's trunk, any depth and width.
        slices: Slices in a step, views counted apart.
        height: H of a slice, pixels.
        width: W of a slice, pixels.
        number_bytes: 4 for float32, 2 under autocast.
    """
    sides = _halved(height, width)
    stem = _channels(blocks["conv1"])
    numbers = 2 * stem * _area(sides)
    sides = _halved(*sides)
    numbers += stem * _area(sides)
    indices = stem * _area(sides)
    for name in LAYERS:
        for part in cast("nn.Sequential", blocks[name]):
            block = cast("Bottleneck", part)
            before, sides = sides, (_halved(*sides) if block.stride == 2 else sides)
            after = 2 * (_channels(block.conv2) + _channels(block.conv3))
            if block.downsample is not None:
                after += _channels(block.conv3)
            numbers += 2 * _channels(block.conv1) * _area(before) + after * _area(sides)
    return slices * (numbers * number_bytes + indices * INDEX_BYTES)


def _channels(convolution: nn.Module) -> int:
    return cast("nn.Conv2d", convolution).out_channels


def _halved(height: int, width: int) -> tuple[int, int]:
    return (height + 1) // 2, (width + 1) // 2


def _area(sides: tuple[int, int]) -> int:
    return sides[0] * sides[1]
