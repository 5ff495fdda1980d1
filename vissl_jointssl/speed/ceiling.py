"""What a step cannot be faster than: torchvision's bare ResNet-50 on as many images of the same size."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
import torchvision
from torch import Tensor

from vissl_jointssl.models.valid_slices import valid_slices

Groups = dict[tuple[int, int], int]


def image_groups(batch: Tensor | Sequence[Tensor]) -> Groups:
    """How many images of each (height, width) a batch has.

    Args:
        batch: A model's input: volumes ``(B, F, C, H, W)``, whose missing slices do not count, or images
            ``(B, C, H, W)``; or a list of such, one per view.
    """
    found: Counter[tuple[int, int]] = Counter()
    for views in [batch] if isinstance(batch, Tensor) else batch:
        height, width = views.shape[-2:]
        found[int(height), int(width)] += int(valid_slices(views).sum()) if views.ndim == 5 else len(views)
    return dict(found)


class Ceiling:
    """Forward and backward of a bare ResNet-50, channels-last: no loss, no optimizer, no data.

    Args:
        groups: Images by (height, width); each group is one forward pass, and one backward pass ends them all, as in
            multi-crop training.
        device: Where.
        autocast: Type of mixed precision; None computes in float32.
    """

    def __init__(self, groups: Groups, device: torch.device, autocast: torch.dtype | None = None) -> None:
        layout = torch.channels_last
        self._resnet = torchvision.models.resnet50(weights=None).to(device).to(memory_format=layout)
        self._images = [
            torch.randn(count, 3, *size, device=device).contiguous(memory_format=layout)
            for size, count in groups.items()
        ]
        self._autocast = autocast

    def __call__(self) -> None:
        """One forward and backward pass; gradients are thrown away."""
        device = self._images[0].device.type
        with torch.autocast(device, dtype=self._autocast, enabled=self._autocast is not None):
            outputs = [self._resnet(images).sum() for images in self._images]
        torch.stack(outputs).sum().backward()
        self._resnet.zero_grad(set_to_none=True)
