from __future__ import annotations

import pytest
import torch

from vissl_jointssl.models.masked_decoder import MaskedDecoder
from vissl_jointssl.models.masking import draw_mask, hide_slices


def prefix(lengths: list[int], slices: int) -> torch.Tensor:
    return torch.arange(slices) < torch.tensor(lengths)[:, None]


@pytest.mark.parametrize(
    ("length", "ratio", "hidden"),
    [(64, 0.1, 6), (2, 0.1, 1), (4, 0.1, 1), (30, 0.1, 3), (10, 0.95, 9), (3, 0.99, 2), (256, 0.1, 26)],
)
def test_the_number_hidden_follows_the_ratio_but_is_never_none_or_all(length: int, ratio: float, hidden: int) -> None:
    assert draw_mask(prefix([length], 256), ratio).sum().item() == hidden


def test_padding_is_never_hidden() -> None:
    valid = prefix([2, 5, 9], 12)
    for _ in range(50):
        mask = draw_mask(valid, 0.4)
        assert not (mask & ~valid).any()
        assert mask.sum(dim=1).tolist() == [1, 2, 4]


def test_every_slice_is_hidden_equally_often() -> None:
    generator = torch.Generator().manual_seed(0)
    valid = prefix([10], 13).expand(4000, -1)
    share = draw_mask(valid, 0.3, generator).float().mean(dim=0)
    # 4000 draws of probability 0.3: a standard deviation of 0.0072.
    torch.testing.assert_close(share[:10], torch.full((10,), 0.3), atol=0.03, rtol=0)


def test_a_generator_repeats_the_draw() -> None:
    valid = prefix([20, 30], 30)
    draws = [draw_mask(valid, 0.3, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


@pytest.mark.parametrize("ratio", [0.0, 1.0, -0.1, float("nan")])
def test_a_ratio_out_of_range_is_refused(ratio: float) -> None:
    with pytest.raises(ValueError, match="mask_ratio must lie between 0 and 1"):
        draw_mask(prefix([4], 4), ratio)


def test_a_volume_of_one_slice_is_named() -> None:
    with pytest.raises(ValueError, match=r"volumes \[1\] of the batch have fewer than 2 slices"):
        draw_mask(prefix([4, 1], 4), 0.1)


def test_hidden_slices_become_the_token_and_the_others_stay() -> None:
    embeddings, token = torch.randn(2, 3, 4), torch.randn(4)
    mask = torch.tensor([[True, False, False], [False, True, True]])
    hidden = hide_slices(embeddings, mask, token)
    for batch in range(2):
        for place in range(3):
            expected = token if mask[batch, place] else embeddings[batch, place]
            assert torch.equal(hidden[batch, place], expected)


def test_the_gradient_goes_to_the_token_for_hidden_slices_only() -> None:
    embeddings, token = torch.randn(1, 3, 4, requires_grad=True), torch.randn(4, requires_grad=True)
    hide_slices(embeddings, torch.tensor([[True, False, True]]), token).sum().backward()
    assert embeddings.grad is not None
    assert token.grad is not None
    assert embeddings.grad[0].sum(dim=1).tolist() == [0.0, 4.0, 0.0]
    assert token.grad.tolist() == [2.0] * 4


def test_a_half_precision_batch_stays_half_precision() -> None:
    hidden = hide_slices(torch.randn(1, 2, 4).bfloat16(), torch.tensor([[True, False]]), torch.randn(4))
    assert hidden.dtype == torch.bfloat16


@pytest.mark.parametrize(("mask", "token"), [((2, 4), (4,)), ((2, 3), (5,))])
def test_shapes_that_do_not_fit_are_refused(mask: tuple[int, ...], token: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"need a mask \(2, 3\) and a mask_token \(4,\)"):
        hide_slices(torch.zeros(2, 3, 4), torch.zeros(mask, dtype=torch.bool), torch.zeros(token))


def test_the_decoder_is_one_linear_map_with_a_bias() -> None:
    decoder = MaskedDecoder(6, 10)
    torch.nn.init.normal_(decoder.linear.weight)
    torch.nn.init.normal_(decoder.linear.bias)
    outputs = torch.randn(2, 3, 6)
    expected = outputs @ decoder.linear.weight.T + decoder.linear.bias
    torch.testing.assert_close(decoder(outputs), expected)
    assert sum(parameter.numel() for parameter in decoder.parameters()) == 6 * 10 + 10


def test_the_decoder_predicts_nothing_before_it_has_learned_and_can_learn() -> None:
    decoder = MaskedDecoder(6, 10)
    predicted = decoder(torch.randn(2, 3, 6))
    assert not predicted.any()
    (predicted - 1).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in decoder.parameters())
