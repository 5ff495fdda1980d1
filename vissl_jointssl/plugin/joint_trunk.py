"""`joint_trunk`: VISSL's ResNet trunk with f_inter on top, so that both worlds share one state dict.

`_feature_blocks.*` are the stock trunk's own keys: a stock stage-1 checkpoint loads into stages 2 and 3, and a stage-3
checkpoint loads into the stock `resnet` trunk for 2D work (VISSL: vissl/models/trunks/resnext.py:125).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from vissl.config import AttrDict
from vissl.models.trunks import register_model_trunk
from vissl.models.trunks.resnext import ResNeXt

from vissl_jointssl.models.attention_axis import build_volume_encoder
from vissl_jointssl.models.masking import draw_mask, hide_slices
from vissl_jointssl.models.slice_encoder import embedding_width, encode_slices
from vissl_jointssl.models.valid_slices import valid_slices
from vissl_jointssl.models.volume_encoder import volume_embedding
from vissl_jointssl.plugin.options import TrunkOptions, read_options
from vissl_jointssl.plugin.recompute_choice import RecomputeChoice
from vissl_jointssl.spelling import nearest

FEATURES = ("volume", "slices")


class MaskedVolume(NamedTuple):
    """What stage 2's head needs: f_inter's outputs, the embeddings to predict, and which slices were hidden."""

    outputs: Tensor  # (B, F, D)
    target: Tensor  # (B, F, E), without gradient
    mask: Tensor  # (B, F), True = hidden


@register_model_trunk("joint_trunk")
class JointTrunk(ResNeXt):
    """f_intra and f_inter in one VISSL trunk.

    Input of `forward`: volumes `(B, F, C, H, W)` with C = 1 or 3; a slice that does not exist is NaN. Output, always a
    list of length one except for feature extraction:

    * stage 2: a `MaskedVolume`; f_intra is frozen, weights and BatchNorm statistics (its `train` stays off),
    * stage 3 and default: volume embeddings `(B, D)`, L2-normalised (Eq. 10),
    * feature extraction, by name and in the order asked for: `volume` `(B, D)`, `slices` `(B, F, D)`.

    f_inter is what `ATTENTION_AXIS` says; with `none`, Z is the normalised mean of the projected slices. Without
    `SLICE_PROJECTION` as well (evaluation of stage 1), it is that of the multi-level embeddings, and D = E.
    """

    def __init__(self, model_config: AttrDict, model_name: str) -> None:
        super().__init__(model_config, model_name)
        section = model_config.TRUNK.get("JOINT_SSL", {})
        options, faults = read_options(TrunkOptions, section, "MODEL.TRUNK.JOINT_SSL")
        if faults:
            raise ValueError("; ".join(faults))
        self.levels = options.levels
        self.mask_ratio = options.mask_ratio
        self.predicts_masked_slices = options.stage == 2
        self._recompute = RecomputeChoice(options.recompute)
        width, slice_width = options.embedding_width, embedding_width(self.levels)
        # A learned map, saved with the rest; the released code draws it anew in every stage.
        self.slice_projection: nn.Module = nn.Linear(slice_width, width)
        if not options.slice_projection:
            # A checkpoint of f_intra alone: better E as it is than a random map of it.
            self.slice_projection, width = nn.Identity(), slice_width
        self.volume_encoder = build_volume_encoder(options.attention_axis, width=width, **options.volume_encoder)
        if self.predicts_masked_slices:
            # Only this stage has a [MASK]: a trainable weight that a stage does not use makes DDP fail.
            self.mask_token = nn.Parameter(torch.randn(width) * 0.02)
            self._feature_blocks.requires_grad_(False)

    def train(self, mode: bool = True) -> JointTrunk:
        """Like `Module.train`, but stage 2's frozen f_intra stays in eval mode: its statistics must not move."""
        super().train(mode)
        if self.predicts_masked_slices:
            self._feature_blocks.eval()
        return self

    def forward(self, x: Tensor, out_feat_keys: list[str] | None = None) -> list[Tensor] | list[MaskedVolume]:
        """Encode volumes; see the class."""
        if x.dim() != 5:
            raise ValueError(f"joint_trunk takes volumes (B, F, C, H, W); got a tensor of shape {tuple(x.shape)}")
        valid = valid_slices(x)
        if self.predicts_masked_slices:
            return [self._masked(x, valid)]
        trains = self.training and torch.is_grad_enabled()
        recompute = self._recompute.blocks_at_once(self._feature_blocks, x) if trains else 0
        slices = encode_slices(self._feature_blocks, x, self.levels, valid, recompute=recompute)
        outputs = self.volume_encoder(self.slice_projection(slices), valid)
        if not out_feat_keys:
            return [volume_embedding(outputs, valid)]
        for key in out_feat_keys:
            if key not in FEATURES:
                raise ValueError(f"joint_trunk has no feature {key!r}{nearest(key, FEATURES)}")
        return [volume_embedding(outputs, valid) if key == "volume" else outputs for key in out_feat_keys]

    def _masked(self, x: Tensor, valid: Tensor) -> MaskedVolume:
        mask = draw_mask(valid, self.mask_ratio)  # waits for a device: before f_intra's work is queued
        with torch.no_grad():
            target = encode_slices(self._feature_blocks, x, self.levels, valid)
        visible = hide_slices(self.slice_projection(target), mask, self.mask_token)
        return MaskedVolume(self.volume_encoder(visible, valid), target, mask)
