"""Position bias of the embedding axis: a small network on the distance of two entries, and the same read from a table.

The network runs on one number per pair of an entry and a point, 819,200 pairs a volume and layer at the released
sizes, and sees nothing but their distance. Evaluated once at some 41,000 distances and interpolated, it costs a
twentieth. Because the entries are evenly spaced, all pairs of one point lie equally far from the table's entries: a
point's column of the bias is two windows of the table, read in one piece, and one share between them.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

TABLE_STEP = 1e-4
"""Largest step of the table, of distances in which the whole embedding is 2 long. Where a ReLU bends within a step, the
table is off by a quarter of step times change of slope: 2e-6 at most for networks as they are initialised."""


class EntryDistanceBias(nn.Module):
    """Position bias of a pair of entries: a small network on the signed logarithm of their distance (SwinV2's form).

    It is continuous, so that points may lie anywhere; all groups share it. It costs hidden * G * P * D numbers per
    volume, P = D / r points: at the released sizes 50 MB a volume and layer in float32. `TabulatedDistanceBias` is
    what models use; this one is what it is checked against.

    Args:
        hidden: Width of its two hidden layers.
        units: Attention units of one group.
    """

    def __init__(self, hidden: int, units: int) -> None:
        super().__init__()
        self.network = nn.Sequential(
            nn.Linear(1, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, units)
        )

    def forward(self, queries: Tensor, points: Tensor) -> Tensor:
        """Bias ``(B, G * units, P, D)`` of query places ``(D,)`` and points ``(B, G, P)``, both scaled to [-1, 1]."""
        bias = self.network(_signed_logarithm(queries - points.unsqueeze(-1)).unsqueeze(-1))  # (B, G, P, D, units)
        return rearrange(bias, "b g p d m -> b (g m) p d")


class TabulatedDistanceBias(EntryDistanceBias):
    """`EntryDistanceBias`, interpolated from a table of the same network, under the same names of weights.

    Gradients are those of the interpolation, exactly. The network's weights feel that where it bends: pairs within the
    step that holds the bend count for both sides. Where gradients of pairs cancel, at worst white noise, this makes a
    hundredth of what is left.

    Args:
        hidden: Width of the two hidden layers.
        units: Attention units of one group.
        overhang: Largest distance of a point from the grid, in steps of the grid of points.
    """

    def __init__(self, hidden: int, units: int, overhang: float) -> None:
        super().__init__(hidden, units)
        self.overhang = overhang

    def forward(self, queries: Tensor, points: Tensor) -> Tensor:
        """Bias ``(B, G * units, P, D)``, in float32 or better, for queries ``(D,)`` that divide [-1, 1] evenly.

        Points ``(B, G, P)`` further out than the overhang are treated as if they lay on its edge.
        """
        reach = 1 + 2 * self.overhang / max(points.shape[-1] - 1, 1)  # points lie in [-reach, reach]
        spacing = 2 / max(queries.shape[0] - 1, 1)
        phases = math.ceil(spacing / TABLE_STEP)  # steps of the table from one entry to the next
        step = spacing / phases
        rows = math.ceil(2 * reach / spacing) + queries.shape[0]
        # In float64: neighbouring entries differ by less than float32 can tell. (Autocast leaves float64 alone.)
        index = torch.arange(rows * phases + 1, device=points.device, dtype=torch.float64)
        table = self._at(index * step - (1 + reach))  # (units, rows * phases + 1)
        points = points.to(torch.promote_types(points.dtype, torch.float32))
        places = ((reach - points) / step).clamp(0, 2 * reach / step)  # of the first entry; others follow by `phases`
        bias: Tensor = _WindowsOfTable.apply(table, places, queries.shape[0], phases)
        return rearrange(bias, "m b g p d -> b (g m) p d")

    def _at(self, distances: Tensor) -> Tensor:
        """The network's answers ``(units, n)`` at n distances, in their type."""
        found = _signed_logarithm(distances).unsqueeze(-1)
        for layer in self.network:
            if isinstance(layer, nn.Linear):
                found = functional.linear(found, layer.weight.to(found.dtype), layer.bias.to(found.dtype))
            else:
                found = layer(found)
        return found.t()


def with_exact_bias(module: nn.Module) -> nn.Module:
    """A copy whose attentions run the network on every pair instead of reading tables: slow, and the check of them."""
    module = copy.deepcopy(module)
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, TabulatedDistanceBias):
                exact = EntryDistanceBias(1, 1)
                exact.network = child.network
                setattr(parent, name, exact)
    return module


def _signed_logarithm(distance: Tensor) -> Tensor:
    return distance.sign() * torch.log1p(distance.abs())


class _WindowsOfTable(torch.autograd.Function):
    """Linear interpolation of a table at places that come in evenly spaced rows; keeps nothing of the size of the bias.

    ``apply(table, places, length, phases)``: table ``(units, rows * phases + 1)``; places ``(B, G, P)``, in steps of
    the table, of the first reading of each row; ``length`` readings, ``phases`` steps apart. Gives
    ``(units, B, G, P, length)`` in the type of the places.
    """

    @staticmethod
    def forward(ctx: Any, table: Tensor, places: Tensor, length: int, phases: int) -> Tensor:
        rows = table.shape[1] // phases
        lower = places.floor().long().clamp(0, (rows - length + 1) * phases - 1)  # a place may be NaN
        start = torch.div(lower, phases, rounding_mode="floor")
        phase = lower - start * phases
        share = (places - lower).unsqueeze(-1)  # (B, G, P, 1)
        rises = _windows(table.diff(dim=1).to(places.dtype), phases, length)
        ctx.save_for_backward(rises, start, phase, share)
        values = _windows(table[:, :-1].to(places.dtype), phases, length)
        return rises[:, phase, start].mul_(share).add_(values[:, phase, start])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        rises, start, phase, share = ctx.saved_tensors
        for_table = for_places = None
        if ctx.needs_input_grad[1]:
            for_places = rises[:, phase, start].mul_(gradient).sum(dim=(0, -1))
        if ctx.needs_input_grad[0]:
            for_table = _sum_of_windows(gradient, start, phase, share, rises).double()
        return for_table, for_places, None, None


def _windows(entries: Tensor, phases: int, length: int) -> Tensor:
    """Every window of ``length`` entries that are ``phases`` apart: ``(units, phases, starts, length)``, a view of few.

    ``entries`` is ``(units, rows * phases)``.
    """
    by_phase = rearrange(entries, "m (r s) -> m s r", s=phases).contiguous()
    return by_phase.unfold(2, length, 1)


def _sum_of_windows(gradient: Tensor, start: Tensor, phase: Tensor, share: Tensor, windows: Tensor) -> Tensor:
    """Gradient of the table: each row of the bias is put back where its window lay, and all are added by phase.

    The sum is a product of matrices, which is faster than adding number by number, and always adds in one order.
    """
    units, phases, starts, length = windows.shape
    rows = starts + length - 1
    target = (start.unsqueeze(-1) + torch.arange(length, device=start.device)).reshape(1, -1, length)
    gradient = gradient.reshape(units, -1, length)
    in_place = gradient.new_zeros(units, gradient.shape[1], rows).scatter_(2, target.expand_as(gradient), gradient)
    shares, lower = share.reshape(-1, 1), phase.reshape(-1, 1)
    of_phase = gradient.new_zeros(shares.shape[0], phases + 1)
    of_phase.scatter_(1, lower, 1 - shares).scatter_(1, lower + 1, shares)
    # In place, because autocast, where a caller has it on in the backward pass too, then keeps its hands off.
    by_phase = gradient.new_zeros(units, phases + 1, rows)
    by_phase.baddbmm_(of_phase.t().expand(units, -1, -1), in_place)
    table = gradient.new_zeros(units, rows * phases + 1)
    table[:, :-1] = rearrange(by_phase[:, :-1], "m s r -> m (r s)")
    table[:, phases::phases] += by_phase[:, -1]
    return table
