from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from vissl_jointssl.models.deformable_attention import (
    DeformableAttention,
    grid_points,
    interpolate_sequence,
    relative_position_bias,
)

SMALL: dict[str, Any] = {"width": 10, "heads": 4, "head_width": 3, "offset_groups": 2, "reference_length": 6}


def moving_attention(seed: int = 0, **changes: Any) -> DeformableAttention:
    """A small attention in float64 whose offsets and bias table are not zero."""
    torch.manual_seed(seed)
    attention = DeformableAttention(**(SMALL | changes)).double()
    torch.nn.init.normal_(attention.offsets.shift.weight, std=2.0)
    torch.nn.init.normal_(attention.bias_table)
    return attention


def read_slowly(entries: list[Tensor], position: float) -> Tensor:
    """One reading between the entries of a list, clamped to its ends."""
    position = min(max(position, 0.0), len(entries) - 1.0)
    lower = math.floor(position)
    upper = min(lower + 1, len(entries) - 1)
    share = position - lower
    return (1 - share) * entries[lower] + share * entries[upper]


def attend_slowly(attention: DeformableAttention, volume: Tensor, reference_length: int) -> Tensor:
    """Equations 6 to 8 for one volume (n, D), one head, one slice and one point at a time."""
    n = volume.shape[0]
    slices = list(volume)
    units, width, groups, r = attention.units, attention.unit_width, attention.groups, attention.downsample
    points = math.ceil(n / r)
    grid = [(j + 0.5) * n / points - 0.5 for j in range(points)]
    to_rows = {name: getattr(attention, name).weight for name in ("queries", "keys", "values")}
    all_queries = [to_rows["queries"] @ slice_ for slice_ in slices]
    kernel, kernel_bias = attention.offsets.neighbours.weight[:, 0], attention.offsets.neighbours.bias
    context = []
    for place in range(n):
        total = kernel_bias.clone()
        for tap in range(kernel.shape[1]):
            source = place + tap - kernel.shape[1] // 2
            if 0 <= source < n:
                total = total + kernel[:, tap] * all_queries[source]
        context.append(total)
    outputs = [[None] * units for _ in range(n)]
    for unit in range(units):
        group = unit // (units // groups)
        per_group = units // groups * width
        rows = slice(unit * width, (unit + 1) * width)
        positions = []
        for point in grid:
            seen = torch.nn.functional.gelu(read_slowly(context, point))[group * per_group : (group + 1) * per_group]
            shift = (
                math.tanh(float(attention.offsets.shift.weight[group, :, 0] @ seen)) * attention.offsets.offset_scale
            )
            positions.append(min(max(point + shift, 0.0), n - 1.0))
        sampled = [read_slowly(slices, position) for position in positions]  # Y~ of Eq. 7, full width
        keys = [to_rows["keys"][rows] @ sample for sample in sampled]
        values = [to_rows["values"][rows] @ sample for sample in sampled]
        for place in range(n):
            logits = []
            for key, position in zip(keys, positions, strict=True):
                distance = (place - position) * (reference_length - 1) / max(n - 1, 1)
                bias = read_slowly(list(attention.bias_table[unit]), distance + reference_length - 1)
                logits.append(all_queries[place][rows] @ key / math.sqrt(width) + bias)
            weights = torch.stack(logits).softmax(0)
            outputs[place][unit] = sum(weight * value for weight, value in zip(weights, values, strict=True))
    return torch.stack([attention.output(torch.cat(row)) for row in outputs])


@pytest.mark.parametrize(("length", "downsample", "counts"), [(64, 8, 8), (64, 1, 64), (9, 4, 3), (3, 8, 1), (1, 1, 1)])
def test_the_grid_is_uniform_and_centred_on_the_volume(length: int, downsample: int, counts: int) -> None:
    points, exists = grid_points(torch.tensor([length]), 64, downsample, torch.float64)
    inside = points[exists]
    assert len(inside) == counts
    cell = length / counts
    assert cell <= downsample
    torch.testing.assert_close(inside, -0.5 + cell * (torch.arange(counts, dtype=torch.float64) + 0.5))
    torch.testing.assert_close(inside.mean(), torch.tensor((length - 1) / 2, dtype=torch.float64))


def test_without_downsampling_the_grid_is_the_slices_exactly() -> None:
    points, exists = grid_points(torch.tensor([256, 37]), 256, 1)
    assert torch.equal(points[0], torch.arange(256.0))
    assert torch.equal(points[1][exists[1]], torch.arange(37.0))


def test_the_grid_does_not_see_the_padding() -> None:
    lengths = torch.tensor([5, 11, 16])
    padded, exists = grid_points(lengths, 16, 3)
    for volume, length in enumerate(lengths.tolist()):
        alone, all_exist = grid_points(lengths[volume : volume + 1], length, 3)
        assert all_exist.all()
        assert torch.equal(padded[volume][exists[volume]], alone[0])


def test_interpolation_equals_a_loop_and_clamps_outside() -> None:
    sequence = torch.randn(2, 3, 7, 4, dtype=torch.float64)
    positions = torch.rand(2, 3, 20, dtype=torch.float64) * 12 - 3
    positions[..., :7] = torch.arange(7)
    lengths = torch.tensor([7, 4])
    read = interpolate_sequence(sequence, positions, lengths)
    for b in range(2):
        for g in range(3):
            for p in range(20):
                expected = read_slowly(list(sequence[b, g, : lengths[b]]), positions[b, g, p].item())
                torch.testing.assert_close(read[b, g, p], expected)


def test_interpolation_of_one_entry_is_that_entry() -> None:
    sequence = torch.randn(1, 1, 1, 3)
    assert torch.equal(interpolate_sequence(sequence, torch.tensor([[[0.0, 0.4, -2.0]]]))[0, 0, 1], sequence[0, 0, 0])


def test_entries_beyond_the_length_are_never_read() -> None:
    sequence = torch.randn(1, 1, 6, 2)
    sequence[:, :, 3:] = float("nan")
    positions = torch.linspace(-1, 8, 40)[None, None]
    assert interpolate_sequence(sequence, positions, torch.tensor([3])).isfinite().all()


def test_a_position_that_is_no_number_gives_none_and_breaks_nothing() -> None:
    sequence = torch.randn(2, 1, 5, 3, requires_grad=True)
    positions = torch.tensor([[[1.5, float("nan")]], [[0.5, 2.0]]])
    read = interpolate_sequence(sequence, positions)
    read.sum().backward()
    assert read[0, 0, 1].isnan().all()
    assert read[0, 0, 0].isfinite().all()
    assert read[1].isfinite().all()


def test_a_position_on_an_entry_still_feels_its_neighbour() -> None:
    sequence = torch.tensor([1.0, 4.0, 9.0]).reshape(1, 1, 3, 1)
    positions = torch.tensor([[[0.0, 1.0, 2.0, 5.0]]], requires_grad=True)
    interpolate_sequence(sequence, positions).sum().backward()
    assert positions.grad is not None
    assert positions.grad.flatten().tolist() == [3.0, 5.0, 5.0, 0.0]  # to the right; the last to the left; none outside


def test_interpolation_has_the_gradients_of_finite_differences() -> None:
    sequence = torch.randn(2, 2, 5, 3, dtype=torch.float64, requires_grad=True)
    positions = (torch.rand(2, 2, 4, dtype=torch.float64) * 3.8 + 0.1).requires_grad_()
    assert torch.autograd.gradcheck(interpolate_sequence, (sequence, positions))


@pytest.mark.parametrize("length", [6, 4, 11, 1])
def test_the_position_bias_equals_a_loop_for_any_length(length: int) -> None:
    table = torch.randn(4, 11, dtype=torch.float64)  # L = 6
    positions = torch.rand(1, 2, 5, dtype=torch.float64) * (length - 1)
    bias = relative_position_bias(table, positions, torch.tensor([length]), length)
    assert bias.shape == (1, 4, length, 5)
    for unit in range(4):
        for place in range(length):
            for point in range(5):
                distance = place - positions[0, unit // 2, point].item()
                expected = read_slowly(list(table[unit]), distance * 5 / max(length - 1, 1) + 5)
                torch.testing.assert_close(bias[0, unit, place, point], expected)


def test_at_the_reference_length_each_distance_has_its_own_entry() -> None:
    table = torch.arange(11.0)[None]
    bias = relative_position_bias(table, torch.arange(6.0)[None, None], torch.tensor([6]), 6)
    expected = torch.tensor([[place - point + 5.0 for point in range(6)] for place in range(6)])
    assert torch.equal(bias[0, 0], expected)


@pytest.mark.parametrize(("length", "downsample"), [(8, 1), (8, 3), (5, 8), (13, 2), (1, 2)])
def test_the_attention_equals_a_loop_over_equations_6_to_8(length: int, downsample: int) -> None:
    attention = moving_attention(downsample=downsample)
    volumes = torch.randn(2, length, 10, dtype=torch.float64)
    with torch.no_grad():
        expected = torch.stack([attend_slowly(attention, volume, 6) for volume in volumes])
        torch.testing.assert_close(attention(volumes), expected)


def test_zero_offsets_and_a_zero_table_give_plain_attention_over_the_grid_points() -> None:
    torch.manual_seed(0)
    attention = DeformableAttention(**SMALL, downsample=4).double()  # as made: nothing has moved yet
    volume = torch.randn(2, 8, 10, dtype=torch.float64)
    sampled = torch.stack([volume[:, 1:3].mean(dim=1), volume[:, 5:7].mean(dim=1)], dim=1)  # points at 1.5 and 5.5

    def split(rows: Tensor) -> Tensor:
        return rows.unflatten(-1, (4, 3)).transpose(1, 2)

    mixed = torch.nn.functional.scaled_dot_product_attention(
        split(attention.queries(volume)), split(attention.keys(sampled)), split(attention.values(sampled))
    )
    torch.testing.assert_close(attention(volume), attention.output(mixed.transpose(1, 2).flatten(2)))


@pytest.mark.parametrize("downsample", [1, 2, 8])
def test_a_padded_volume_comes_out_as_it_would_alone(downsample: int) -> None:
    attention = moving_attention(downsample=downsample)
    sequence = torch.randn(3, 16, 10, dtype=torch.float64)
    lengths = [16, 9, 1]
    valid = torch.arange(16) < torch.tensor(lengths)[:, None]
    together = attention(sequence.masked_fill(~valid.unsqueeze(-1), float("nan")), valid)
    for volume, length in enumerate(lengths):
        alone = attention(sequence[volume : volume + 1, :length])
        torch.testing.assert_close(together[volume, :length], alone[0], rtol=1e-12, atol=1e-12)
        assert (together[volume, length:] == 0).all()


@pytest.mark.parametrize(("downsample", "moved"), [(2, True), (1, False)])  # unmoved: one point on the last slice
def test_gradients_of_a_padded_volume_are_those_of_the_volume_alone(downsample: int, moved: bool) -> None:
    attention = moving_attention(downsample=downsample)
    if not moved:
        torch.nn.init.zeros_(attention.offsets.shift.weight)
    sequence = torch.randn(1, 12, 10, dtype=torch.float64)
    gradients = []
    for padding in (0, 4):
        attention.zero_grad()
        volume = torch.cat([sequence, torch.randn(1, padding, 10, dtype=torch.float64)], dim=1).requires_grad_()
        valid = torch.arange(12 + padding)[None] < 12
        attention(volume, valid).square().sum().backward()
        assert volume.grad is not None
        assert (volume.grad[:, 12:] == 0).all()
        gradients.append([volume.grad[:, :12], *[parameter.grad for parameter in attention.parameters()]])
    for alone, padded in zip(*gradients, strict=True):
        torch.testing.assert_close(padded, alone, rtol=1e-10, atol=1e-10)


def test_the_attention_has_the_gradients_of_finite_differences() -> None:
    attention = moving_attention(downsample=2)
    volume = torch.randn(1, 5, 10, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(attention, (volume,))


def test_points_start_on_the_grid_and_learn_to_move_at_once() -> None:
    torch.manual_seed(0)
    attention = DeformableAttention(**SMALL, downsample=2)
    volume, lengths = torch.randn(2, 8, 10), torch.tensor([8, 8])
    points, _ = grid_points(lengths, 8, 2)
    positions, _ = attention.shifted_points(attention.queries(volume), lengths)
    assert torch.equal(positions, points[:, None].expand(-1, 2, -1))
    attention(volume).square().sum().backward()
    gradient = attention.offsets.shift.weight.grad
    assert gradient is not None
    assert (gradient.abs().amax(dim=(1, 2)) > 0).all()  # every group


@pytest.mark.parametrize(("offset_scale", "limit"), [(None, 4.0), (1.5, 1.5)])
def test_a_point_moves_at_most_the_offset_scale_and_stays_in_the_volume(
    offset_scale: float | None, limit: float
) -> None:
    attention = moving_attention(downsample=4, offset_scale=offset_scale)
    torch.nn.init.normal_(attention.offsets.shift.weight, std=1000.0)
    lengths = torch.tensor([13])
    volume = torch.randn(1, 13, 10, dtype=torch.float64)
    points, _ = grid_points(lengths, 13, 4, torch.float64)
    positions, _ = attention.shifted_points(attention.queries(volume), lengths)
    moved = (positions - points[:, None]).abs()
    assert moved.max() <= limit + 1e-9
    assert moved.max() > 0.9 * limit
    assert positions.min() >= 0
    assert positions.max() <= 12


def test_groups_move_on_their_own() -> None:
    attention = moving_attention(downsample=2)
    positions, _ = attention.shifted_points(
        attention.queries(torch.randn(1, 8, 10, dtype=torch.float64)), torch.tensor([8])
    )
    assert not torch.allclose(positions[:, 0], positions[:, 1])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_close_to_float64(dtype: torch.dtype) -> None:
    exact = moving_attention(downsample=2)
    half = moving_attention(downsample=2).to(dtype)
    volume = torch.randn(2, 200, 10, dtype=torch.float64).to(dtype)  # 200 slices: bfloat16 counts to 256 in ones
    difference = (half(volume).double() - exact.to(dtype).double()(volume.double())).abs().mean()
    assert half(volume).dtype == dtype
    assert difference < 0.05


def test_positions_are_float32_under_autocast() -> None:
    attention = moving_attention(downsample=1).float()
    with torch.autocast("cpu", torch.bfloat16):
        queries = attention.queries(torch.randn(1, 200, 10))
        positions, _ = attention.shifted_points(queries, torch.tensor([200]))
    assert queries.dtype == torch.bfloat16
    assert positions.dtype == torch.float32


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"downsample": 0}, "downsample is the number of slices per grid point, at least 1, got 0"),
        ({"offset_groups": 3}, "4 heads cannot be shared evenly by 3 offset groups"),
        ({"offset_kernel": 6}, "offset_kernel must be odd, to be centred on a slice, got 6"),
        ({"reference_length": 1}, "reference_length must be at least 2 slices to hold a distance, got 1"),
    ],
)
def test_sizes_that_cannot_be_combined_are_refused(change: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DeformableAttention(**(SMALL | change))
