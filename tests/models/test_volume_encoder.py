from __future__ import annotations

from typing import Any

import pytest
import torch

from vissl_jointssl.models.volume_encoder import VolumeEncoder, volume_embedding

SMALL: dict[str, Any] = {
    "width": 12,
    "heads": 4,
    "head_width": 3,
    "offset_groups": 2,
    "feed_forward_width": 9,
    "reference_length": 8,
}


def moving_encoder(**changes: Any) -> VolumeEncoder:
    """A small encoder in float64 and eval mode whose offsets and bias tables are not zero."""
    torch.manual_seed(0)
    encoder = VolumeEncoder(**(SMALL | changes)).double().eval()
    for name, parameter in encoder.named_parameters():
        if "bias_table" in name or "shift" in name:
            torch.nn.init.normal_(parameter)
    return encoder


def test_names_avoid_the_words_by_which_vissl_sorts_parameters() -> None:
    names = [name for name, _ in VolumeEncoder(**SMALL).named_modules()] + list(VolumeEncoder(**SMALL).state_dict())
    assert not [name for name in names if "head" in name or "pos_embedding" in name]


def test_the_default_is_four_blocks_of_the_papers_sizes() -> None:
    encoder = VolumeEncoder()
    attentions = [block.attention for block in encoder.blocks]
    assert [attention.downsample for attention in attentions] == [8, 4, 2, 1]
    assert {(a.units, a.unit_width, a.groups, a.queries.in_features) for a in attentions} == {(6, 64, 6, 640)}
    # Per block: q, k, v 3 * 640 * 384; output 384 * 640 + 640; offsets 384 * 5 + 384 and 384; bias 6 * 127;
    # feed-forward 640 * 720 + 720 + 720 * 640 + 640; two norms of 1280. Before them one norm of 1280.
    block = 737_280 + 246_400 + 2_304 + 384 + 762 + 922_960 + 2_560
    assert sum(parameter.numel() for parameter in encoder.parameters()) == 4 * block + 1_280


def test_a_block_is_attention_then_feed_forward_each_with_residual_and_norm() -> None:
    encoder = moving_encoder()
    block = encoder.blocks[1]
    sequence = torch.randn(2, 7, 12, dtype=torch.float64)
    middle = block.attention_norm(sequence + block.attention(sequence))
    hidden = torch.nn.functional.gelu(block.feed_forward[0](middle))
    expected = block.feed_forward_norm(middle + block.feed_forward[3](hidden))
    torch.testing.assert_close(block(sequence), expected)


@pytest.mark.parametrize("slices", [1, 2, 8, 9, 64, 256])
def test_any_number_of_slices_is_encoded(slices: int) -> None:
    outputs = moving_encoder()(torch.randn(1, slices, 12, dtype=torch.float64))
    assert outputs.shape == (1, slices, 12)
    assert outputs.isfinite().all()


def test_volumes_of_different_length_come_out_as_they_would_alone() -> None:
    encoder = moving_encoder()
    lengths = [3, 8, 17, 40, 1]
    embeddings = torch.randn(5, 40, 12, dtype=torch.float64)
    valid = torch.arange(40) < torch.tensor(lengths)[:, None]
    padded = embeddings.masked_fill(~valid.unsqueeze(-1), float("nan"))
    together = encoder(padded, valid)
    z = volume_embedding(together, valid)
    for volume, length in enumerate(lengths):
        alone = encoder(embeddings[volume : volume + 1, :length])
        torch.testing.assert_close(together[volume, :length], alone[0], rtol=1e-11, atol=1e-11)
        torch.testing.assert_close(z[volume], volume_embedding(alone)[0], rtol=1e-11, atol=1e-11)
        assert (together[volume, length:] == 0).all()


def test_padded_slices_change_nothing_in_float32() -> None:
    encoder = moving_encoder().float()
    embeddings = torch.randn(2, 20, 12)
    valid = torch.arange(20) < torch.tensor([13, 20])[:, None]
    outputs = encoder(embeddings, valid)
    torch.testing.assert_close(outputs[0, :13], encoder(embeddings[:1, :13])[0], rtol=0, atol=1e-5)


def test_padded_slices_get_no_gradient_and_existing_ones_do() -> None:
    encoder = moving_encoder()
    embeddings = torch.randn(2, 6, 12, dtype=torch.float64, requires_grad=True)
    valid = torch.arange(6) < torch.tensor([4, 6])[:, None]
    volume_embedding(encoder(embeddings, valid), valid)[:, 0].sum().backward()
    assert embeddings.grad is not None
    assert (embeddings.grad[~valid] == 0).all()
    assert (embeddings.grad[valid].abs().sum(dim=1) > 0).all()


def test_every_parameter_learns() -> None:
    encoder = moving_encoder()
    target = torch.randn(2, 9, 12, dtype=torch.float64)
    (encoder(torch.randn(2, 9, 12, dtype=torch.float64)) * target).sum().backward()
    silent = [name for name, p in encoder.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert silent == []


def test_nan_in_the_padding_poisons_no_gradient() -> None:
    encoder = moving_encoder()
    valid = torch.arange(6) < torch.tensor([4, 6])[:, None]
    embeddings = torch.randn(2, 6, 12, dtype=torch.float64).masked_fill(~valid.unsqueeze(-1), float("nan"))
    volume_embedding(encoder(embeddings, valid), valid)[:, 0].sum().backward()
    assert [name for name, p in encoder.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []


def test_the_order_of_the_slices_matters_before_any_training() -> None:
    torch.manual_seed(0)
    # No shift, no bias, no coarse grid: attention alone would give the same slices in another order.
    encoder = VolumeEncoder(**SMALL, downsample=(1,)).eval()
    embeddings = torch.randn(1, 9, 12)
    turned = volume_embedding(encoder(embeddings.flip(1)))
    assert (turned - volume_embedding(encoder(embeddings))).abs().max() > 1e-2


def test_small_embeddings_are_not_drowned_by_the_position_code() -> None:
    # Two volumes with nothing in common, as small as slice embeddings are after their random projection.
    encoder = moving_encoder()
    embeddings = torch.randn(2, 16, 12, dtype=torch.float64)
    large, small = (volume_embedding(encoder(embeddings * size)) for size in (1.0, 0.02))
    torch.testing.assert_close(small, large, atol=0.02, rtol=0)


def test_dropout_acts_in_training_only() -> None:
    encoder = moving_encoder(dropout=0.5)
    embeddings = torch.randn(1, 6, 12, dtype=torch.float64)
    assert torch.equal(encoder(embeddings), encoder(embeddings))
    encoder.train()
    assert not torch.equal(encoder(embeddings), encoder(embeddings))
    shares = [module.p for module in encoder.modules() if isinstance(module, torch.nn.Dropout)]
    assert shares == [0.5] * 8  # after both layers of each of the four feed-forward networks


def test_mixed_precision_agrees_with_float32() -> None:
    encoder = moving_encoder().float()
    embeddings = torch.randn(2, 30, 12)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = volume_embedding(encoder(embeddings))
    cosine = (mixed.float() * volume_embedding(encoder(embeddings))).sum(dim=1)
    torch.testing.assert_close(cosine, torch.ones(2), atol=0.01, rtol=0)


def test_the_volume_embedding_is_the_normalised_mean_of_existing_slices() -> None:
    outputs = torch.randn(2, 4, 3, dtype=torch.float64)
    valid = torch.tensor([[True, True, False, False], [True] * 4])
    for volume, length in enumerate([2, 4]):
        mean = [sum(outputs[volume, place, d].item() for place in range(length)) / length for d in range(3)]
        norm = sum(value**2 for value in mean) ** 0.5
        expected = torch.tensor([value / norm for value in mean], dtype=torch.float64)
        torch.testing.assert_close(volume_embedding(outputs, valid)[volume], expected)


def test_a_volume_without_slices_is_refused_by_both() -> None:
    valid = torch.tensor([[True, True], [False, False]])
    with pytest.raises(ValueError, match=r"volumes \[1\] of the batch have no valid slice"):
        VolumeEncoder(**SMALL)(torch.randn(2, 2, 12), valid)
    with pytest.raises(ValueError, match=r"volumes \[1\] of the batch have no valid slice"):
        volume_embedding(torch.randn(2, 2, 12), valid)


def test_another_width_is_refused() -> None:
    with pytest.raises(ValueError, match=r"embeddings must be \(B, F, 12\), got \(2, 5, 13\)"):
        VolumeEncoder(**SMALL)(torch.randn(2, 5, 13))


def test_an_odd_width_and_an_empty_pyramid_are_refused() -> None:
    with pytest.raises(ValueError, match="its width must be even, got 13"):
        VolumeEncoder(**(SMALL | {"width": 13}))
    with pytest.raises(ValueError, match="got no block"):
        VolumeEncoder(**(SMALL | {"downsample": ()}))


def test_neither_forward_nor_backward_asks_the_device_for_a_number() -> None:
    # Tensors on meta have no values: whatever needs one on the host, and so waits for a GPU, fails.
    encoder = VolumeEncoder(**SMALL).to("meta")
    embeddings = torch.randn(2, 20, 12, device="meta", requires_grad=True)
    valid = torch.ones(2, 20, dtype=torch.bool, device="meta")
    volume_embedding(encoder(embeddings, valid), valid).sum().backward()
    assert embeddings.grad is not None
    assert embeddings.grad.shape == (2, 20, 12)
    assert all(parameter.grad is not None for parameter in encoder.parameters())
