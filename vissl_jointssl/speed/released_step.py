"""What a step of the released recipe takes: its two networks on as many slices, as its code runs them."""

from __future__ import annotations

import torch
import torchvision
from torch import nn

from vissl_jointssl.speed.ceiling import Groups
from vissl_jointssl.speed.inter import SLICES, WIDTH, package_blocks

DROPOUT = 0.1


class ReleasedStep:
    """torchvision's ResNet-50 in NCHW, four blocks of PyPI's deformable attention; forward, backward and SGD.

    Views, which the released code makes in loader workers, and its loss are left out.

    Args:
        groups: Slices by (height, width), one size; as many as volumes of `SLICES` slices.
        device: Where.
        autocast: Type of mixed precision; None computes in float32.

    Raises:
        ValueError: If deformable-attention is missing, or the slices are not whole volumes of one size.
    """

    def __init__(self, groups: Groups, device: torch.device, autocast: torch.dtype | None = None) -> None:
        ((size, count),) = groups.items()
        if count % SLICES:
            raise ValueError(f"{count} slices are no volumes of {SLICES}, which is what the released blocks take")
        resnet = torchvision.models.resnet50(weights=None)
        resnet.fc = nn.Linear(resnet.fc.in_features, WIDTH)
        self._resnet = resnet.to(device)
        self._blocks = package_blocks(SLICES, dropout=DROPOUT).to(device)
        self._images = torch.randn(count, 3, *size, device=device)
        self._autocast = autocast
        weights = [*self._resnet.parameters(), *self._blocks.parameters()]
        self._optimizer = torch.optim.SGD(weights, lr=1e-4, momentum=0.9)

    def __call__(self) -> None:
        """One step."""
        with torch.autocast(self._images.device.type, dtype=self._autocast, enabled=self._autocast is not None):
            slices = self._resnet(self._images)
            volumes = self._blocks(slices.view(-1, SLICES, WIDTH)).mean(dim=1)
        volumes.float().square().sum().backward()
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
