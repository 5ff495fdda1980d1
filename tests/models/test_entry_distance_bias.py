"""The position bias by table against the network run on every pair."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from vissl_jointssl.models.entry_distance_bias import EntryDistanceBias, TabulatedDistanceBias, with_exact_bias
from vissl_jointssl.models.released_attention import ReleasedAttention

OVERHANG = 2.0


def both(units: int = 1, size: float = 3.0) -> tuple[EntryDistanceBias, TabulatedDistanceBias]:
    """Equal networks, with weights that many times as large as new ones: the bias of new ones is nearly flat."""
    torch.manual_seed(0)
    table = TabulatedDistanceBias(16, units, OVERHANG).double()
    with torch.no_grad():
        for parameter in table.parameters():
            parameter.mul_(size)
    exact = EntryDistanceBias(16, units).double()
    exact.load_state_dict(table.state_dict())
    return exact, table


def places(entries: int, points: int, groups: int = 2) -> tuple[Tensor, Tensor]:
    """Queries ``(D,)`` and points ``(2, G, P)`` that lie as far off the grid as they may, or anywhere between."""
    shifts = (torch.rand(2, groups, points, dtype=torch.float64) * 2 - 1).mul(1.5).clamp(-1, 1) * OVERHANG
    scaled = 2 * (torch.arange(points) + shifts) / max(points - 1, 1) - 1
    return 2 * torch.arange(entries, dtype=torch.float64) / max(entries - 1, 1) - 1, scaled


def test_the_exact_bias_is_the_network_on_the_signed_logarithm_of_each_distance() -> None:
    exact, _ = both(units=2)
    queries, points = places(5, 3)
    bias = exact(queries, points)
    assert bias.shape == (2, 4, 3, 5)
    for group in range(2):
        for point in range(3):
            for entry in range(5):
                distance = queries[entry] - points[1, group, point]
                size = torch.log1p(distance.abs()) * (1 if distance > 0 else -1)
                torch.testing.assert_close(bias[1, 2 * group : 2 * group + 2, point, entry], exact.network(size[None]))


@pytest.mark.parametrize(("entries", "points", "units"), [(640, 160, 1), (64, 16, 2), (12, 3, 2), (5, 1, 3), (1, 1, 1)])
def test_the_table_is_within_1e_5_of_every_pair(entries: int, points: int, units: int) -> None:
    exact, table = both(units, size=1.0)
    queries, scaled = places(entries, points)
    torch.testing.assert_close(table(queries, scaled), exact(queries, scaled), rtol=0, atol=1e-5)


def test_between_the_entries_of_the_table_it_interpolates() -> None:
    exact, table = both()
    queries, scaled = places(640, 160)
    expected = exact(queries, scaled)
    off = (table(queries, scaled) - expected).abs()
    assert expected.std() > 0.05
    assert off.mean() < 1e-7  # the next entry instead: 1e-5
    assert off.max() < 1e-4  # where the network bends


def test_in_float32_points_get_the_slope_of_the_network_and_not_rounding() -> None:
    exact, table = both()
    queries, scaled = places(640, 160)
    gradients = []
    for bias, dtype in ((exact, torch.float64), (table.float(), torch.float32)):
        given = scaled.to(dtype, copy=True).requires_grad_()
        bias(queries.to(dtype), given)[..., 300].sum().backward()  # one pair for each point
        assert given.grad is not None
        gradients.append(given.grad.double())
    slope, found = gradients
    assert slope.abs().median() > 0.05
    assert (found - slope).abs().median() < 2e-5  # a table of float32: 3e-4


def test_weights_and_points_have_the_gradients_of_finite_differences() -> None:
    _, table = both(units=2)
    queries, scaled = places(6, 2)
    names = [name for name, _ in table.named_parameters()]

    def bias(points: Tensor, *weights: Tensor) -> Tensor:
        found: Tensor = torch.func.functional_call(table, dict(zip(names, weights, strict=True)), (queries, points))
        return found.sum(dim=0)

    given = [value.detach().requires_grad_() for value in (scaled * 0.9, *table.parameters())]
    assert torch.autograd.gradcheck(bias, given, fast_mode=True)


def test_the_gradient_of_the_weights_is_the_networks_but_for_pairs_next_to_a_bend() -> None:
    exact, table = both(units=2)
    queries, scaled = places(64, 16)
    weight = torch.rand(2, 4, 16, 64, dtype=torch.float64)
    for bias in (exact, table):
        (bias(queries, scaled) * weight).sum().backward()
    for (name, expected), found in zip(exact.named_parameters(), table.parameters(), strict=True):
        assert expected.grad is not None
        assert found.grad is not None
        assert (found.grad - expected.grad).norm() < 1e-3 * expected.grad.norm(), name


def test_it_is_float32_and_as_exact_under_autocast_forward_and_backward() -> None:
    _, table = both()
    table = table.float()
    queries, scaled = (value.float() for value in places(64, 16))
    gradients = []
    for enabled in (False, True):
        table.zero_grad()
        given = scaled.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            bias = table(queries, given)
            bias.square().sum().backward()
        assert bias.dtype == torch.float32
        gradients.append([given.grad, *(parameter.grad for parameter in table.parameters())])
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-6, atol=1e-6)


def test_a_point_beyond_the_overhang_counts_as_on_its_edge() -> None:
    exact, table = both()
    queries, _ = places(12, 3)
    edge = 1 + 2 * OVERHANG / 2
    found = table(queries, torch.tensor([[[-90.0, 0.0, 90.0]]], dtype=torch.float64))
    expected = exact(queries, torch.tensor([[[-edge, 0.0, edge]]], dtype=torch.float64))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_a_point_that_is_no_number_gives_none_and_breaks_nothing() -> None:
    _, table = both()
    queries, _ = places(12, 3)
    bias = table(queries, torch.tensor([[[float("nan"), 0.0, 1.0]]], dtype=torch.float64))
    assert bias[0, 0, 0].isnan().all()
    assert bias[0, 0, 1:].isfinite().all()


def test_the_exact_copy_has_the_same_weights_and_leaves_the_original_alone() -> None:
    attention = nn.Sequential(ReleasedAttention())
    exact = with_exact_bias(attention)
    assert type(exact[0].position_bias) is EntryDistanceBias
    assert type(attention[0].position_bias) is TabulatedDistanceBias
    assert list(exact.state_dict()) == list(attention.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(exact.parameters(), attention.parameters(), strict=True))


def test_weights_have_the_names_that_checkpoints_know() -> None:
    assert list(TabulatedDistanceBias(4, 1, OVERHANG).state_dict()) == [
        f"network.{layer}.{kind}" for layer in (0, 2, 4) for kind in ("weight", "bias")
    ]
