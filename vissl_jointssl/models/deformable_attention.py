"""Deformable self-attention along the slices of a volume (Eq. 6-8).

Every slice asks (queries), but only a few places answer: a uniform grid, r times coarser than the slices, whose points
are shifted by an offset network that has seen the queries, and where keys and values are read by linear interpolation.
Positions are counted in slices: 0 is the first slice, n - 1 the last one of a volume of n slices.
"""

from __future__ import annotations

import torch
from einops import rearrange, repeat
from torch import Tensor, nn


def grid_points(
    lengths: Tensor, slices: int, downsample: int, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    """Place ceil(n / r) points uniformly over each volume's own n slices (p of Eq. 7).

    The volume is cut into equal cells of at most r slices and each point is the middle of one, so that a point stands
    for the slices around it and r = 1 gives the slices themselves. Because the grid follows n and not the padded
    length, padding cannot move it.

    Args:
        lengths: Slices that exist in each volume, n, ``(B,)``.
        slices: Padded length F; it sets how many points there is room for, P = ceil(F / r).
        downsample: r, how many slices share one point.
        dtype: Type of the positions.

    Returns:
        Positions ``(B, P)``, and which of them exist, ``(B, P)``; the others are 0 and must be left out.
    """
    counts = torch.div(lengths + downsample - 1, downsample, rounding_mode="floor")[:, None]
    index = torch.arange(-(-slices // downsample), device=lengths.device)[None, :]
    points = (index.to(dtype) + 0.5) * (lengths[:, None].to(dtype) / counts) - 0.5
    exists = index < counts
    return points.masked_fill(~exists, 0.0), exists


def interpolate_sequence(sequence: Tensor, positions: Tensor, lengths: Tensor | None = None) -> Tensor:
    """Read a sequence between its entries (phi of Eq. 7).

    Differentiable in the positions as well: moving by one entry changes the value by the difference of the two
    neighbours. On an entry the slope to the right counts (to the left on the last), so that points which start on a
    slice can start to move. Positions outside are clamped to the first or last entry.

    Args:
        sequence: ``(B, G, F, d)``, G sequences per volume.
        positions: Where to read, in entries from 0 to n - 1, ``(B, G, P)``, float32 or float64.
        lengths: Entries that exist, n, ``(B,)``; those beyond are never read. None means all F.

    Returns:
        ``(B, G, P, d)`` in the type of ``sequence``.
    """
    if lengths is None:
        lengths = torch.full(sequence.shape[:1], sequence.shape[2], device=sequence.device)
    last = (lengths - 1)[:, None, None]  # (B, 1, 1)
    positions = positions.clamp(min=0).clamp(max=last.to(positions.dtype))
    lower = positions.detach().floor().long().clamp(min=0).minimum((last - 1).clamp(min=0))
    upper = (lower + 1).minimum(last)
    width = sequence.shape[-1]
    before = sequence.gather(2, repeat(lower, "b g p -> b g p d", d=width))
    after = sequence.gather(2, repeat(upper, "b g p -> b g p d", d=width))
    return torch.lerp(before, after, (positions - lower).unsqueeze(-1).to(sequence.dtype))


def relative_position_bias(table: Tensor, positions: Tensor, lengths: Tensor, slices: int) -> Tensor:
    """Read the bias of every pair of a slice and a point from the learned table (phi(B; R) of Eq. 8).

    The table covers the distances -(L - 1) to L - 1 of a volume of L slices. Volumes of another length scale their
    distances to that range, so an entry always means the same share of the volume and any length can be read.

    Args:
        table: One row of 2L - 1 entries per attention unit, ``(units, 2L - 1)``; units is a multiple of G.
        positions: Shifted points, in slices, ``(B, G, P)``.
        lengths: Slices that exist in each volume, ``(B,)``.
        slices: Padded length F.

    Returns:
        Bias to add to the logits, ``(B, units, F, P)``, in the type of ``table``.
    """
    batch, groups, points = positions.shape
    reach = (table.shape[1] - 1) // 2  # L - 1
    index = torch.arange(slices, device=positions.device, dtype=positions.dtype)
    scale = reach / (lengths - 1).clamp(min=1).to(positions.dtype)
    distance = (index[:, None] - positions[:, :, None, :]) * scale[:, None, None, None]  # (B, G, F, P)
    entry = repeat(distance + reach, "b g f p -> b (g m) (f p)", m=table.shape[0] // groups)
    bias = interpolate_sequence(repeat(table, "u t -> b u t 1", b=batch), entry)
    return rearrange(bias, "b u (f p) 1 -> b u f p", p=points)


class OffsetNetwork(nn.Module):
    """Predict how far each point of the grid moves, from the queries around it (theta_offset of Eq. 7).

    A depthwise convolution looks at the neighbouring queries, GELU, then one number per group. The convolution pads
    with zeros because padded slices have zero queries: the end of a volume looks the same whether the batch is padded
    or not, which repeating the last query could not promise. The last layer starts at zero, so that training starts
    from the uniform grid. tanh bounds a shift to ``offset_scale``: at r slices, a point can reach its neighbours' cells
    but the points cannot all gather in one place.

    Args:
        width: Width of all queries together.
        groups: Groups that move on their own; each sees its own queries and has its own weights.
        kernel: Odd size of the convolution, in slices.
        offset_scale: Largest shift, in slices.
    """

    def __init__(self, width: int, groups: int, kernel: int, offset_scale: float) -> None:
        super().__init__()
        self.offset_scale = offset_scale
        self.neighbours = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width)
        self.activation = nn.GELU()
        self.shift = nn.Conv1d(width, groups, 1, groups=groups, bias=False)
        nn.init.zeros_(self.shift.weight)

    def forward(self, queries: Tensor, points: Tensor, lengths: Tensor) -> Tensor:
        """Shifts in slices ``(B, G, P)`` from queries ``(B, F, width)`` at grid points ``(B, P)``."""
        context = self.neighbours(rearrange(queries, "b f c -> b c f"))
        # The grid may fall between slices: read the context there, as a strided convolution would between its taps.
        context = interpolate_sequence(rearrange(context, "b c f -> b 1 f c"), points[:, None], lengths)
        shift = self.shift(self.activation(rearrange(context, "b 1 p c -> b c p")))
        return torch.tanh(shift.to(points.dtype)) * self.offset_scale


class DeformableAttention(nn.Module):
    """Deformable multi-head self-attention along the slices (Eq. 6-8).

    Keys and values are projected before they are interpolated: both steps are linear and the maps have no bias, so
    the order does not matter, and each offset group can read the whole width D although D need not divide by G.

    Attribute names avoid the word "head", by which VISSL tells a model's head from its trunk when it groups parameters.

    Args:
        width: Width D of the sequence.
        downsample: r, slices per grid point.
        heads: Attention heads.
        head_width: Width of one head.
        offset_groups: G, groups of heads that share their points; divides ``heads``.
        offset_kernel: Odd kernel of the offset network, in slices.
        offset_scale: Largest shift of a point, in slices; ``downsample`` by default.
        reference_length: L, the number of slices for which the bias table has one entry per distance.

    Raises:
        ValueError: If the sizes cannot be combined.
    """

    def __init__(
        self,
        *,
        width: int = 640,
        downsample: int = 1,
        heads: int = 6,
        head_width: int = 64,
        offset_groups: int = 6,
        offset_kernel: int = 5,
        offset_scale: float | None = None,
        reference_length: int = 64,
    ) -> None:
        super().__init__()
        if downsample < 1:
            raise ValueError(f"downsample is the number of slices per grid point, at least 1, got {downsample}")
        if heads % offset_groups:
            raise ValueError(f"{heads} heads cannot be shared evenly by {offset_groups} offset groups; use a divisor")
        if offset_kernel % 2 == 0:
            raise ValueError(f"offset_kernel must be odd, to be centred on a slice, got {offset_kernel}")
        if reference_length < 2:
            raise ValueError(f"reference_length must be at least 2 slices to hold a distance, got {reference_length}")
        inner = heads * head_width
        self.units, self.unit_width, self.groups, self.downsample = heads, head_width, offset_groups, downsample
        self.queries = nn.Linear(width, inner, bias=False)
        self.keys = nn.Linear(width, inner, bias=False)
        self.values = nn.Linear(width, inner, bias=False)
        scale = float(downsample if offset_scale is None else offset_scale)
        self.offsets = OffsetNetwork(inner, offset_groups, offset_kernel, scale)
        # Zero: no distance is preferred before training; the heads already differ through their projections.
        self.bias_table = nn.Parameter(torch.zeros(heads, 2 * reference_length - 1))
        self.output = nn.Linear(inner, width)

    def shifted_points(self, queries: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Points where keys and values are read, in slices ``(B, G, P)``, and which exist, ``(B, P)``.

        Positions are float32 even when the queries are not: half precision cannot tell neighbouring slices apart.
        """
        dtype = torch.promote_types(queries.dtype, torch.float32)
        points, exists = grid_points(lengths, queries.shape[1], self.downsample, dtype)
        shifted = points[:, None] + self.offsets(queries, points, lengths)
        return shifted.clamp(min=0).clamp(max=(lengths - 1)[:, None, None].to(dtype)), exists

    def forward(self, sequence: Tensor, valid: Tensor | None = None) -> Tensor:
        """Attend along the slices.

        Args:
            sequence: ``(B, F, D)``.
            valid: True where a slice exists, ``(B, F)``, padding at the end and at least one slice per volume
                (`VolumeEncoder` checks both); None means all.

        Returns:
            ``(B, F, D)``; zeros where a slice does not exist.
        """
        slices = sequence.shape[1]
        if valid is None:
            valid = torch.ones(sequence.shape[:2], dtype=torch.bool, device=sequence.device)
        sequence = sequence.masked_fill(~valid.unsqueeze(-1), 0.0)
        lengths = valid.sum(dim=1)
        queries = self.queries(sequence)
        positions, exists = self.shifted_points(queries, lengths)

        def read(projected: Tensor) -> Tensor:
            grouped = rearrange(projected, "b f (g c) -> b g f c", g=self.groups)
            found = interpolate_sequence(grouped, positions, lengths)
            return rearrange(found, "b g p (m c) -> b (g m) p c", c=self.unit_width)

        keys, values = read(self.keys(sequence)), read(self.values(sequence))  # (B, heads, P, head_width)
        queries = rearrange(queries, "b f (u c) -> b u f c", u=self.units)
        logits = queries @ keys.transpose(-1, -2) / self.unit_width**0.5
        logits = logits + relative_position_bias(self.bias_table, positions, lengths, slices)
        weights = logits.masked_fill(~exists[:, None, None, :], float("-inf")).softmax(dim=-1)
        mixed = rearrange(weights.to(values.dtype) @ values, "b u f c -> b f (u c)")
        return self.output(mixed).masked_fill(~valid.unsqueeze(-1), 0.0)
