"""`masked_decoder_head`: f_decode as a VISSL head (Eq. 14)."""

from __future__ import annotations

from torch import Tensor, nn
from vissl.config import AttrDict
from vissl.models.heads import register_model_head

from vissl_jointssl.models.masked_decoder import MaskedDecoder
from vissl_jointssl.models.slice_encoder import embedding_width
from vissl_jointssl.plugin.joint_trunk import MaskedVolume
from vissl_jointssl.plugin.options import TrunkOptions, read_options


@register_model_head("masked_decoder_head")
class MaskedDecoderHead(nn.Module):
    """Predicts the hidden slices' frozen embeddings from f_inter's outputs.

    `HEAD.PARAMS` entry: `["masked_decoder_head", {}]`; the widths D and E are the trunk's.
    """

    def __init__(self, model_config: AttrDict) -> None:
        super().__init__()
        options, _ = read_options(TrunkOptions, model_config.TRUNK.JOINT_SSL, "MODEL.TRUNK.JOINT_SSL")
        self.decoder = MaskedDecoder(options.embedding_width, embedding_width(options.levels))

    def forward(self, volume: MaskedVolume) -> list[Tensor]:
        """Predictions `(B, F, E)`, targets `(B, F, E)` and the mask `(B, F)`: a flat list, as VISSL's hooks expect."""
        return [self.decoder(volume.outputs), volume.target, volume.mask]
