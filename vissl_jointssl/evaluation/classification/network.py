"""f_intra, f_inter and two fully connected layers on the embedding of the volume."""

from __future__ import annotations

from torch import Tensor, nn

from vissl_jointssl.models.joint_encoder import JointEncoder
from vissl_jointssl.models.valid_slices import valid_slices
from vissl_jointssl.models.volume_encoder import volume_embedding


class VolumeClassifier(nn.Module):
    """Logits of volumes.

    The paper: "on top of f_intra and f_inter two fully connected layers in the size of 640 and 252; the last layer
    returns two probability outputs". Read as layers of these input sizes, 640 to 252 to the classes, ReLU between.

    Args:
        encoder: Every weight of it trains.
        classes: How many.
        hidden: Width between the two layers.
    """

    def __init__(self, encoder: JointEncoder, classes: int, hidden: int = 252) -> None:
        super().__init__()
        self.encoder = encoder
        self.classifier = nn.Sequential(nn.Linear(encoder.width, hidden), nn.ReLU(), nn.Linear(hidden, classes))

    def forward(self, volume: Tensor) -> Tensor:
        """Logits `(B, classes)` of `(B, F, C, H, W)`; slices that do not exist are NaN."""
        valid = valid_slices(volume)
        outputs = self.encoder.encoded(volume, valid)
        logits: Tensor = self.classifier(volume_embedding(outputs, valid) * self.encoder.width**0.5)
        return logits
