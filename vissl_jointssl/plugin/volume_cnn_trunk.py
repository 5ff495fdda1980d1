"""`volume_cnn_trunk`: the 3D baselines' CNN as a VISSL trunk, on the same views as `joint_trunk`."""

from __future__ import annotations

from torch import Tensor
from vissl.config import AttrDict
from vissl.models.trunks import register_model_trunk

from vissl_jointssl.models.volume_cnn import VolumeCNN
from vissl_jointssl.spelling import nearest

FEATURES = ("volume",)


@register_model_trunk("volume_cnn_trunk")
class VolumeCNNTrunk(VolumeCNN):
    """Volumes `(B, F, 1, H, W)` to a list with their embeddings `(B, 512)`; feature extraction calls them `volume`.

    Contract with VISSL: vissl/models/base_ssl_model.py:184 (`single_input_forward`), as for its own trunks.
    """

    def __init__(self, model_config: AttrDict, model_name: str) -> None:
        super().__init__()

    def forward(self, x: Tensor, out_feat_keys: list[str] | None = None) -> list[Tensor]:  # type: ignore[override]
        """Encode volumes; see the class."""
        keys = out_feat_keys or ["volume"]
        for key in keys:
            if key not in FEATURES:
                raise ValueError(f"volume_cnn_trunk has no feature {key!r}{nearest(key, FEATURES)}")
        embeddings = super().forward(x)
        return [embeddings for _ in keys]
