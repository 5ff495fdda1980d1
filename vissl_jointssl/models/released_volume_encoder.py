"""f_inter as the authors' released code has it: blocks of attention along the embedding entries."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vissl_jointssl.models.released_attention import ReleasedAttention
from vissl_jointssl.models.valid_slices import valid_lengths
from vissl_jointssl.models.volume_encoder import AttentionBlock


class ReleasedVolumeEncoder(nn.Module):
    """f_inter, embedding axis: 3,885,892 parameters at the released sizes, four equal blocks.

    As released, there is no LayerNorm before the first block and no position code: a slice is known by its channel.
    A volume with fewer slices has channels of zeros in their place, which no block may fill, so what lies in the
    padding changes nothing; unlike on the slice axis, how much padding there is does matter to the weights.

    Args:
        width: Width D.
        slices: F, exactly; see `ReleasedAttention`.
        blocks: Number of blocks.
        downsample: r of every block, in embedding entries.
        heads: Attention heads of each block.
        head_width: Width of one head.
        offset_groups: Groups of slices and heads that share their points.
        feed_forward_width: Hidden width of the feed-forward networks.
        dropout: Dropout of the feed-forward networks.
        offset_kernel: Kernel of the offset networks, in entries.
        offset_scale: Largest shift of a point, in steps of the coarse grid.

    Raises:
        ValueError: If the sizes cannot be combined.
    """

    def __init__(
        self,
        *,
        width: int = 640,
        slices: int = 64,
        blocks: int = 4,
        downsample: int = 4,
        heads: int = 8,
        head_width: int = 64,
        offset_groups: int = 8,
        feed_forward_width: int = 720,
        dropout: float = 0.1,
        offset_kernel: int = 6,
        offset_scale: float = 2.0,
    ) -> None:
        super().__init__()
        if blocks < 1:
            raise ValueError(f"blocks is {blocks}; f_inter has at least one (for none, choose the attention axis none)")
        if width < downsample:
            raise ValueError(f"width is {width} and downsample {downsample}; a step cannot be longer than the sequence")
        self.width = width
        self.blocks = nn.ModuleList()
        for _ in range(blocks):
            attention = ReleasedAttention(
                slices=slices,
                downsample=downsample,
                heads=heads,
                head_width=head_width,
                offset_groups=offset_groups,
                offset_kernel=offset_kernel,
                offset_scale=offset_scale,
            )
            self.blocks.append(AttentionBlock(attention, width, feed_forward_width, dropout))

    def forward(self, embeddings: Tensor, valid: Tensor | None = None) -> Tensor:
        """Encode the slices of each volume in the light of the others.

        Args:
            embeddings: Slices projected to the width D, ``(B, F, D)``, F = ``slices``.
            valid: True where a slice exists, ``(B, F)``, padding at the end; None means all.

        Returns:
            ``(B, F, D)``; zeros where a slice does not exist.

        Raises:
            ValueError: If F or the width is another, or if a volume has no valid slice or padding before one.
        """
        if embeddings.ndim != 3 or embeddings.shape[-1] != self.width:
            raise ValueError(
                f"embeddings must be (B, F, {self.width}), got {tuple(embeddings.shape)}; "
                "project the slice embeddings to the encoder's width first"
            )
        if valid is None:
            valid = torch.ones(embeddings.shape[:2], dtype=torch.bool, device=embeddings.device)
        valid_lengths(valid)
        absent = ~valid.unsqueeze(-1)
        sequence = embeddings.masked_fill(absent, 0.0)
        for block in self.blocks:
            sequence = block(sequence, valid).masked_fill(absent, 0.0)
        return sequence
