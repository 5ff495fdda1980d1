"""A ResNet-50 written out as plain tensor operations: the second opinion on an export.

It reads weights by VISSL's names and knows nothing of torchvision's model or VISSL's, so a wrong mapping, a swapped
block or a stride in the wrong convolution shows as a difference of the features.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from vissl_jointssl.export.account import ExportError

TOLERANCE = 1e-5  # largest accepted difference of any entry of the features
BATCH_NORM_EPSILON = 1e-5  # the default of torch.nn.BatchNorm2d, which VISSL keeps


def resnet_features(weights: Mapping[str, Tensor], images: Tensor) -> Tensor:
    """Pooled features of a bottleneck ResNet in evaluation mode.

    Args:
        weights: Weights by VISSL's names without ``_feature_blocks.``, such as ``layer1.0.conv1.weight``.
        images: ``(B, C, H, W)``.

    Returns:
        ``(B, 2048)``, the average-pooled output of the last stage.
    """
    x = F.conv2d(images, weights["conv1.weight"], stride=2, padding=3)
    x = F.relu(_batch_norm(x, weights, "bn1"))
    x = F.max_pool2d(x, kernel_size=3, stride=2, padding=1)
    for stage in (1, 2, 3, 4):
        block = 0
        while f"layer{stage}.{block}.conv1.weight" in weights:
            halving = 2 if stage > 1 and block == 0 else 1
            x = _bottleneck(x, weights, f"layer{stage}.{block}", halving)
            block += 1
    return x.mean(dim=(2, 3))


def parity_images(size: int = 96) -> Tensor:
    """The fixed input of every parity check: two images, ``(2, 3, size, size)``, standard normal."""
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(20240302))


def check_parity(checkpoint: Path, exported: Tensor, own: Tensor) -> float:
    """The largest difference between the exported model's features and the checkpoint's own.

    Raises:
        ExportError: If it is above ``TOLERANCE``, or no number at all.
    """
    difference = float((exported - own).abs().max())
    # Written so that a NaN does not pass.
    if not difference <= TOLERANCE:
        raise ExportError(
            f"{checkpoint}: features of the exported model differ by {difference:.3g} from the checkpoint's own "
            f"(accepted: {TOLERANCE:g}), so nothing was written; report this with the checkpoint's train_config.yaml"
        )
    return difference


def _bottleneck(x: Tensor, weights: Mapping[str, Tensor], name: str, stride: int) -> Tensor:
    out = F.relu(_batch_norm(F.conv2d(x, weights[f"{name}.conv1.weight"]), weights, f"{name}.bn1"))
    # The stride sits in the 3x3 convolution (ResNet "v1.5"), not in the first 1x1 as in the original paper.
    out = F.conv2d(out, weights[f"{name}.conv2.weight"], stride=stride, padding=1)
    out = F.relu(_batch_norm(out, weights, f"{name}.bn2"))
    out = _batch_norm(F.conv2d(out, weights[f"{name}.conv3.weight"]), weights, f"{name}.bn3")
    if f"{name}.downsample.0.weight" in weights:
        x = F.conv2d(x, weights[f"{name}.downsample.0.weight"], stride=stride)
        x = _batch_norm(x, weights, f"{name}.downsample.1")
    return F.relu(out + x)


def _batch_norm(x: Tensor, weights: Mapping[str, Tensor], name: str) -> Tensor:
    return F.batch_norm(
        x,
        weights[f"{name}.running_mean"],
        weights[f"{name}.running_var"],
        weights[f"{name}.weight"],
        weights[f"{name}.bias"],
        eps=BATCH_NORM_EPSILON,
    )
