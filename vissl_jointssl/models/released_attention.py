"""Deformable attention along the embedding entries: how the authors' released code reads Eq. 6-8.

The slices are the channels of a sequence of D positions, the entries of their embeddings. Every entry asks, and one in
r entries answers, shifted by what the queries around it say. That fixes the number of slices: each has weights of its
own. The numbers are those of `DeformableAttention1D` of the package `deformable-attention`, which the released code
calls and which equals this module on equal weights; where the package counts oddly, so do we, and say so.
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn

from vissl_jointssl.models.deformable_attention import interpolate_sequence
from vissl_jointssl.models.entry_distance_bias import TabulatedDistanceBias


class ReleasedAttention(nn.Module):
    """Deformable multi-head attention along the embedding entries, slices as channels.

    Slices are split into G groups; each group makes its own queries, keys and values, and its points move on their
    own, by an offset network that all groups share. A slice that does not exist is a channel of zeros.

    Attribute names avoid the word "head", by which VISSL tells a model's head from its trunk when it groups parameters.

    Args:
        slices: F, the number of slices of every volume; the released code's is 64.
        downsample: r, entries per point.
        heads: Attention heads.
        head_width: Width of one head.
        offset_groups: G; divides ``heads`` and ``slices``.
        offset_kernel: Kernel of the offset network, in entries; as much above ``downsample`` as an even number.
        offset_scale: Largest shift of a point, in steps of the coarse grid.

    Raises:
        ValueError: If the sizes cannot be combined.
    """

    def __init__(
        self,
        *,
        slices: int = 64,
        downsample: int = 4,
        heads: int = 8,
        head_width: int = 64,
        offset_groups: int = 8,
        offset_kernel: int = 6,
        offset_scale: float = 2.0,
    ) -> None:
        super().__init__()
        if downsample < 1:
            raise ValueError(f"downsample is the number of entries per point, at least 1, got {downsample}")
        for name, value in (("heads", heads), ("slices", slices)):
            if value % offset_groups:
                raise ValueError(f"{value} {name} cannot be shared evenly by {offset_groups} offset groups; change one")
        if slices < 4:
            raise ValueError(f"slices is {slices}; the position bias is slices / 4 wide, so it takes at least 4")
        margin = offset_kernel - downsample
        if margin < 0 or margin % 2:
            raise ValueError(
                f"offset_kernel is {offset_kernel} and downsample {downsample}; the kernel must cover the step and "
                f"reach equally far to both sides: use {downsample}, {downsample + 2}, ..."
            )
        inner = heads * head_width
        self.slices, self.units, self.unit_width, self.groups = slices, heads, head_width, offset_groups
        self.offset_scale = offset_scale
        self.queries = nn.Conv1d(slices, inner, 1, groups=offset_groups, bias=False)
        self.keys = nn.Conv1d(slices, inner, 1, groups=offset_groups, bias=False)
        self.values = nn.Conv1d(slices, inner, 1, groups=offset_groups, bias=False)
        width = inner // offset_groups
        self.offsets = nn.Sequential(
            nn.Conv1d(width, width, offset_kernel, stride=downsample, padding=margin // 2, groups=width),
            nn.GELU(),
            nn.Conv1d(width, 1, 1, bias=False),
            nn.Tanh(),
        )
        self.position_bias = TabulatedDistanceBias(slices // 4, heads // offset_groups, offset_scale)
        self.output = nn.Conv1d(inner, slices, 1)

    def scaled_points(self, queries: Tensor) -> Tensor:
        """Shifted points ``(B, G, P)`` from queries ``(B, inner, D)``, scaled so that the grid spans [-1, 1].

        Not less than float32: half precision cannot tell neighbouring entries apart.
        """
        shifts = self.offsets(rearrange(queries, "b (g c) d -> (b g) c d", g=self.groups))
        shifts = rearrange(shifts, "(b g) 1 p -> b g p", g=self.groups)
        exact = torch.promote_types(shifts.dtype, torch.float32)
        grid = torch.arange(shifts.shape[-1], device=shifts.device, dtype=exact)
        return _to_unit_range(grid + shifts.to(exact) * self.offset_scale)

    def forward(self, sequence: Tensor, valid: Tensor | None = None) -> Tensor:
        """Attend along the entries.

        Args:
            sequence: ``(B, F, D)`` with F = ``slices``.
            valid: True where a slice exists, ``(B, F)``; None means all.

        Returns:
            ``(B, F, D)``; zeros where a slice does not exist.

        Raises:
            ValueError: If F is another number of slices, or D is shorter than one step.
        """
        if sequence.shape[1] != self.slices:
            raise ValueError(
                f"the embedding axis reads the slices as channels, exactly {self.slices} of them, got "
                f"{sequence.shape[1]}; make the views' num_slices and the encoder's slices one number, or attend "
                "along the slice axis, which takes any"
            )
        if valid is not None:
            sequence = sequence.masked_fill(~valid.unsqueeze(-1), 0.0)
        queries = self.queries(sequence)  # (B, inner, D)
        points = self.scaled_points(queries)
        found = rearrange(_read_entries(sequence, points), "b g p c -> b (g c) p")

        def split(projected: Tensor) -> Tensor:
            return rearrange(projected, "b (u c) n -> b u n c", u=self.units)

        queries, keys, values = split(queries), split(self.keys(found)), split(self.values(found))
        entries = torch.arange(sequence.shape[-1], device=sequence.device, dtype=points.dtype)
        # Points before entries, (B, units, P, D): the bias comes that way, and turning it would cost as much as it.
        logits = keys @ (queries / self.unit_width**0.5).transpose(-1, -2)
        weights = (logits + self.position_bias(_to_unit_range(entries), points)).softmax(dim=-2)
        mixed = rearrange(weights.to(values.dtype).transpose(-1, -2) @ values, "b u d c -> b (u c) d")
        output = self.output(mixed)
        return output if valid is None else output.masked_fill(~valid.unsqueeze(-1), 0.0)


def _to_unit_range(places: Tensor) -> Tensor:
    """Scale places counted from 0 to n - 1 to [-1, 1]; n is the length of the last axis."""
    return 2 * places / max(places.shape[-1] - 1, 1) - 1


def _read_entries(sequence: Tensor, points: Tensor) -> Tensor:
    """Read each group's slices between the entries, zero outside.

    The package means by -1 and 1 the outer edges of the first and the last entry (`grid_sample` with
    ``align_corners=False``), so its outermost points lie half an entry outside, half way to zero.

    Args:
        sequence: ``(B, F, D)``.
        points: ``(B, G, P)``, scaled as above.

    Returns:
        ``(B, G, P, F / G)`` in the type of ``sequence``.
    """
    grouped = rearrange(sequence, "b (g c) d -> b g d c", g=points.shape[1])
    bordered = nn.functional.pad(grouped, (0, 0, 1, 1))  # a zero before the first entry and one after the last
    places = ((points + 1) * sequence.shape[-1] - 1) / 2
    return interpolate_sequence(bordered, places + 1)
