"""f_inter: four blocks of deformable attention that let the slices of a volume see each other (Eq. 6-10)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from vissl_jointssl.models.deformable_attention import DeformableAttention
from vissl_jointssl.models.position_code import position_code
from vissl_jointssl.models.valid_slices import valid_lengths


class AttentionBlock(nn.Module):
    """An attention and a feed-forward network, each followed by its residual and LayerNorm.

    Args:
        attention: Any module called as ``attention(sequence, valid)`` that keeps the shape ``(B, F, D)``; the axis it
            attends along is its own affair.
        width: Width D.
        feed_forward_width: Width of the hidden layer.
        dropout: Share of entries dropped in the feed-forward network.
    """

    def __init__(self, attention: nn.Module, width: int, feed_forward_width: int, dropout: float) -> None:
        super().__init__()
        self.attention = attention
        self.attention_norm = nn.LayerNorm(width)
        self.feed_forward = nn.Sequential(
            nn.Linear(width, feed_forward_width),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(feed_forward_width, width),
            nn.Dropout(dropout),
        )
        self.feed_forward_norm = nn.LayerNorm(width)

    def forward(self, sequence: Tensor, valid: Tensor | None = None) -> Tensor:
        """Map ``(B, F, D)`` to ``(B, F, D)``; what comes out at padded slices is meaningless."""
        sequence = self.attention_norm(sequence + self.attention(sequence, valid))
        return self.feed_forward_norm(sequence + self.feed_forward(sequence))


class VolumeEncoder(nn.Module):
    """f_inter: deformable attention over the slices, from coarse to fine (Eq. 6-8, Figure 6).

    The slices are normalised (LayerNorm) before the position code is added. Projected slice embeddings start some
    thirty times smaller than the code, whose entries are of order one; without this, every volume would come out as
    nearly the same vector, which is where clustering collapses.

    Names of parameters hold neither "head" nor "pos_embedding": VISSL sorts and resizes parameters by these words.

    Args:
        width: Width D.
        downsample: r of each block; its length is the number of blocks.
        heads: Attention heads of each block.
        head_width: Width of one head.
        offset_groups: Groups of heads that share their points.
        feed_forward_width: Hidden width of the feed-forward networks.
        dropout: Dropout of the feed-forward networks.
        offset_kernel: Kernel of the offset networks, in slices.
        reference_length: L of the bias tables, in slices; volumes of any length can be encoded.

    Raises:
        ValueError: If the sizes cannot be combined.
    """

    def __init__(
        self,
        *,
        width: int = 640,
        downsample: Sequence[int] = (8, 4, 2, 1),
        heads: int = 6,
        head_width: int = 64,
        offset_groups: int = 6,
        feed_forward_width: int = 720,
        dropout: float = 0.1,
        offset_kernel: int = 5,
        reference_length: int = 64,
    ) -> None:
        super().__init__()
        position_code(1, width)  # an odd width fails here and not at the first step
        if not downsample:
            raise ValueError("downsample names the grid of each block, for example (8, 4, 2, 1); got no block")
        self.width = width
        self.input_norm = nn.LayerNorm(width)
        self.blocks = nn.ModuleList()
        for factor in downsample:
            attention = DeformableAttention(
                width=width,
                downsample=factor,
                heads=heads,
                head_width=head_width,
                offset_groups=offset_groups,
                offset_kernel=offset_kernel,
                reference_length=reference_length,
            )
            self.blocks.append(AttentionBlock(attention, width, feed_forward_width, dropout))

    def forward(self, embeddings: Tensor, valid: Tensor | None = None) -> Tensor:
        """Encode the slices of each volume in the light of the others.

        Args:
            embeddings: Slices projected to the width D, ``(B, F, D)``; any F.
            valid: True where a slice exists, ``(B, F)``, padding at the end; None means all. Padding changes nothing:
                a volume comes out as it would in a batch of its own.

        Returns:
            ``(B, F, D)``; zeros where a slice does not exist.

        Raises:
            ValueError: If the width is another, or if a volume has no valid slice or padding before one.
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
        sequence = self.input_norm(embeddings.masked_fill(absent, 0.0))
        sequence = sequence + position_code(sequence.shape[1], self.width, sequence.device, sequence.dtype)
        for block in self.blocks:
            sequence = block(sequence, valid)
        return sequence.masked_fill(absent, 0.0)


def volume_embedding(outputs: Tensor, valid: Tensor | None = None) -> Tensor:
    """Average f_inter's outputs over the slices that exist and L2-normalise (Eq. 10).

    Args:
        outputs: ``(B, F, D)``.
        valid: True where a slice exists, ``(B, F)``; None means all.

    Returns:
        Volume embeddings Z of length one, ``(B, D)``, in the type of ``outputs``; half precision is summed in float32.

    Raises:
        ValueError: If a volume has no valid slice or padding before one.
    """
    if valid is None:
        valid = torch.ones(outputs.shape[:2], dtype=torch.bool, device=outputs.device)
    lengths = valid_lengths(valid)
    exact = torch.promote_types(outputs.dtype, torch.float32)
    total = outputs.masked_fill(~valid.unsqueeze(-1), 0.0).sum(dim=1, dtype=exact)
    return functional.normalize(total / lengths[:, None], dim=1).to(outputs.dtype)
