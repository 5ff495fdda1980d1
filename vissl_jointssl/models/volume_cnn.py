"""The 3D baselines' network: torchvision's ``r3d_18`` on volumes of one channel.

The paper's 3D-SwAV and 3D-DeepCluster run "on a 3D CNN" and name none. This one is a well-kept 3D ResNet whose first
convolution halves the slices' height and width but not their number, which suits scans with few, thick slices.
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn
from torchvision.models.video import r3d_18

from vissl_jointssl.models.valid_slices import valid_lengths, valid_slices

WIDTH = 512
"""Width of the embedding, r3d_18's own."""


class VolumeCNN(nn.Module):
    """A volume to one embedding, by 3D convolutions and an average over space.

    torchvision's stem reads RGB videos; ours reads one grey channel, because three copies of it would cost time and
    say nothing. A slice that does not exist becomes zero, which is the mean grey of normalised views and what the
    convolutions' own padding is; it takes part in the average, as in the released crop-or-pad.
    """

    def __init__(self) -> None:
        super().__init__()
        network = r3d_18(weights=None)
        stem = network.stem[0]
        network.stem[0] = nn.Conv3d(
            1, stem.out_channels, stem.kernel_size, stride=stem.stride, padding=stem.padding, bias=False
        )
        # As torchvision draws its other convolutions (torchvision/models/video/resnet.py, `VideoResNet`).
        nn.init.kaiming_normal_(network.stem[0].weight, mode="fan_out", nonlinearity="relu")
        self.stem = network.stem
        self.layer1, self.layer2 = network.layer1, network.layer2
        self.layer3, self.layer4 = network.layer3, network.layer4

    def forward(self, volume: Tensor) -> Tensor:
        """Embed a batch.

        Args:
            volume: ``(B, F, 1, H, W)``, NaN in the slices that do not exist.

        Returns:
            Embeddings ``(B, 512)``, not normalised.

        Raises:
            ValueError: If the shape is another, a volume has no slice or padding lies before a slice.
        """
        valid = valid_slices(volume)
        valid_lengths(valid)
        if volume.shape[2] != 1:
            raise ValueError(
                f"the 3D CNN reads 1 channel, got {volume.shape[2]}; choose one, for example one sequence of an MRI"
            )
        # where, not a product: NaN times zero is NaN
        filled = torch.where(valid[:, :, None, None, None], volume, volume.new_zeros(()))
        maps = rearrange(filled, "b f c h w -> b c f h w")
        for block in (self.stem, self.layer1, self.layer2, self.layer3, self.layer4):
            maps = block(maps)
        return maps.mean(dim=(2, 3, 4))  # (B, 512)
