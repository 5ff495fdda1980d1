"""The embedding axis against the package that the released code calls."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from deformable_attention import DeformableAttention1D

from vissl_jointssl.models.entry_distance_bias import with_exact_bias
from vissl_jointssl.models.released_attention import ReleasedAttention

NAMES = {  # ours: the package's
    "queries": "to_q",
    "keys": "to_k",
    "values": "to_v",
    "output": "to_out",
    "offsets.0": "to_offsets.0",
    "offsets.2": "to_offsets.2",
    "position_bias.network.0": "rel_pos_bias.mlp.0.0",
    "position_bias.network.2": "rel_pos_bias.mlp.1.0",
    "position_bias.network.4": "rel_pos_bias.mlp.2",
}
SMALL: dict[str, Any] = {"slices": 8, "heads": 4, "head_width": 3, "offset_groups": 2}


def package_name(name: str) -> str:
    module, _, kind = name.rpartition(".")
    return f"{NAMES[module]}.{kind}"


def moving_attention(**changes: Any) -> ReleasedAttention:
    """A small attention in float64 whose points move far."""
    torch.manual_seed(0)
    attention = ReleasedAttention(**(SMALL | changes)).double()
    torch.nn.init.normal_(attention.offsets[2].weight, std=2.0)
    return attention


@pytest.mark.parametrize(
    ("spread", "exact"),
    [(0.0, False), (5.0, False), (5.0, True)],
    ids=["as made", "points far from the grid, some outside", "the same, every pair"],
)
def test_with_equal_weights_output_and_gradients_are_the_packages(spread: float, exact: bool) -> None:
    torch.manual_seed(0)
    ours = ReleasedAttention()
    theirs = DeformableAttention1D(dim=64, downsample_factor=4, offset_scale=2, offset_kernel_size=6)
    if spread:
        torch.nn.init.normal_(ours.offsets[2].weight, std=spread)
    theirs.load_state_dict({package_name(name): value for name, value in ours.state_dict().items()})
    ours = cast("ReleasedAttention", with_exact_bias(ours)) if exact else ours
    sequence, weight = torch.randn(2, 64, 640), torch.randn(2, 64, 640)
    found, results = [], []
    for attention in (ours, theirs):
        given = sequence.clone().requires_grad_()
        output = attention(given)
        (output * weight).mean().backward()
        results.append((output.detach(), given.grad))
        found.append(dict(attention.named_parameters()))
    torch.testing.assert_close(results[0][0], results[1][0], rtol=0, atol=1e-5)
    torch.testing.assert_close(results[0][1], results[1][1], rtol=0, atol=1e-5)
    assert len(found[0]) == len(found[1]) == 14
    for name, parameter in found[0].items():
        expected = found[1][package_name(name)].grad
        assert expected is not None
        assert expected.abs().sum() > 0, name
        torch.testing.assert_close(parameter.grad, expected, rtol=1e-3, atol=1e-5, msg=name)


@pytest.mark.parametrize(
    "sizes",
    [
        {"slices": 12, "heads": 6, "head_width": 5, "offset_groups": 3, "downsample": 2, "offset_kernel": 4},
        {"slices": 6, "heads": 2, "head_width": 4, "offset_groups": 1, "downsample": 3, "offset_kernel": 3},
    ],
)
def test_other_sizes_are_the_packages_too_in_float64(sizes: dict[str, Any]) -> None:
    ours = moving_attention(**sizes)
    theirs = DeformableAttention1D(
        dim=sizes["slices"],
        dim_head=sizes["head_width"],
        heads=sizes["heads"],
        downsample_factor=sizes["downsample"],
        offset_scale=2,
        offset_groups=sizes["offset_groups"],
        offset_kernel_size=sizes["offset_kernel"],
    ).double()
    theirs.load_state_dict({package_name(name): value for name, value in ours.state_dict().items()})
    sequence = torch.randn(2, sizes["slices"], 25, dtype=torch.float64)
    for attention in (ours, with_exact_bias(ours)):
        # The package scales the places of the queries in float32 even then.
        torch.testing.assert_close(attention(sequence), theirs(sequence), rtol=0, atol=1e-7)


def test_by_table_the_released_sizes_give_what_every_pair_gives_to_seven_digits() -> None:
    torch.manual_seed(0)
    attention = ReleasedAttention().double()
    torch.nn.init.normal_(attention.offsets[2].weight, std=5.0)
    sequence, weight = torch.randn(2, 1, 64, 640, dtype=torch.float64)
    outputs, gradients = [], []
    for one in (attention, with_exact_bias(attention)):
        given = sequence.clone().requires_grad_()
        output = one(given)
        wanted = [parameter for name, parameter in one.named_parameters() if "network" not in name]
        outputs.append(output.detach())
        gradients.append(torch.autograd.grad((output * weight).sum(), [given, *wanted]))
    torch.testing.assert_close(outputs[0], outputs[1], rtol=0, atol=1e-7)
    for found, expected in zip(*gradients, strict=True):
        assert (found - expected).norm() < 1e-5 * expected.norm()


def test_an_attention_of_the_released_sizes_has_45953_parameters() -> None:
    assert sum(parameter.numel() for parameter in ReleasedAttention().parameters()) == 45_953


def test_it_has_the_gradients_of_finite_differences() -> None:
    sequence = torch.randn(1, 8, 12, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(moving_attention(), (sequence,))


def test_a_missing_slice_is_a_channel_of_zeros_whatever_lies_there() -> None:
    attention = moving_attention()
    valid = (torch.arange(8) < 5)[None]
    sequence = torch.randn(1, 8, 12, dtype=torch.float64)
    poisoned = sequence.masked_fill(~valid.unsqueeze(-1), float("nan")).requires_grad_()
    output = attention(poisoned, valid)
    zeroed = attention(sequence.masked_fill(~valid.unsqueeze(-1), 0.0))
    torch.testing.assert_close(output[:, :5], zeroed[:, :5])
    assert (output[:, 5:] == 0).all()
    output.square().sum().backward()
    assert poisoned.grad is not None
    assert (poisoned.grad[:, 5:] == 0).all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in attention.parameters())


def test_positions_are_float32_under_autocast() -> None:
    attention = moving_attention().float()
    with torch.autocast("cpu", torch.bfloat16):
        queries = attention.queries(torch.randn(1, 8, 640))
        points = attention.scaled_points(queries)
    assert queries.dtype == torch.bfloat16
    assert points.dtype == torch.float32


def test_another_number_of_slices_is_refused_with_the_way_out() -> None:
    with pytest.raises(ValueError, match=r"exactly 8 of them, got 5; make the views' num_slices .* one number"):
        moving_attention()(torch.randn(1, 5, 12, dtype=torch.float64))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"downsample": 0}, "downsample is the number of entries per point, at least 1, got 0"),
        ({"offset_groups": 3, "slices": 9}, "4 heads cannot be shared evenly by 3 offset groups"),
        ({"slices": 9}, "9 slices cannot be shared evenly by 2 offset groups"),
        ({"slices": 2}, "slices is 2; the position bias is slices / 4 wide, so it takes at least 4"),
        ({"offset_kernel": 5}, "offset_kernel is 5 and downsample 4; .* use 4, 6"),
        ({"offset_kernel": 2}, "offset_kernel is 2 and downsample 4; .* use 4, 6"),
    ],
)
def test_sizes_that_cannot_be_combined_are_refused(change: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ReleasedAttention(**(SMALL | change))
