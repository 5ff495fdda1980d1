from __future__ import annotations

from typing import Any

import pytest
import torch

from vissl_jointssl.models.released_volume_encoder import ReleasedVolumeEncoder
from vissl_jointssl.models.volume_encoder import volume_embedding

SMALL: dict[str, Any] = {
    "width": 12,
    "slices": 8,
    "blocks": 2,
    "heads": 4,
    "head_width": 3,
    "offset_groups": 2,
    "feed_forward_width": 9,
}


def small_encoder(**changes: Any) -> ReleasedVolumeEncoder:
    torch.manual_seed(0)
    return ReleasedVolumeEncoder(**(SMALL | changes)).double().eval()


def test_the_default_is_the_released_size_to_the_last_parameter() -> None:
    # Per block: attention 45,953; feed-forward 640 * 720 + 720 + 720 * 640 + 640; two norms of 1280.
    assert sum(parameter.numel() for parameter in ReleasedVolumeEncoder().parameters()) == 4 * (
        45_953 + 922_960 + 2_560
    )


def test_its_blocks_follow_each_other_and_nothing_comes_before_or_after() -> None:
    encoder = small_encoder()
    embeddings = torch.randn(2, 8, 12, dtype=torch.float64)
    expected = encoder.blocks[1](encoder.blocks[0](embeddings))
    torch.testing.assert_close(encoder(embeddings), expected)


def test_names_avoid_the_words_by_which_vissl_sorts_parameters() -> None:
    encoder = small_encoder()
    names = [name for name, _ in encoder.named_modules()] + list(encoder.state_dict())
    assert not [name for name in names if "head" in name or "pos_embedding" in name]


def test_what_lies_in_the_padding_changes_nothing_and_learns_nothing() -> None:
    encoder = small_encoder()
    valid = torch.arange(8) < torch.tensor([5, 8])[:, None]
    embeddings = torch.randn(2, 8, 12, dtype=torch.float64)
    absent = ~valid.unsqueeze(-1)
    zeros = encoder(embeddings.masked_fill(absent, 0.0), valid)
    given = embeddings.masked_fill(absent, float("nan")).requires_grad_()
    outputs = encoder(given, valid)
    torch.testing.assert_close(outputs, zeros)
    assert (outputs[0, 5:] == 0).all()
    volume_embedding(outputs, valid)[:, 0].sum().backward()
    assert given.grad is not None
    assert (given.grad[~valid] == 0).all()
    silent = [name for name, p in encoder.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert silent == []


def test_a_volume_comes_out_the_same_in_any_batch() -> None:
    encoder = small_encoder()
    embeddings = torch.randn(3, 8, 12, dtype=torch.float64)
    valid = torch.arange(8) < torch.tensor([4, 8, 6])[:, None]
    together = encoder(embeddings, valid)
    for volume in range(3):
        one = slice(volume, volume + 1)
        torch.testing.assert_close(together[one], encoder(embeddings[one], valid[one]))


def test_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"embeddings must be \(B, F, 12\), got \(2, 8, 13\)"):
        small_encoder()(torch.randn(2, 8, 13))
    with pytest.raises(ValueError, match="exactly 8 of them, got 6"):
        small_encoder()(torch.randn(2, 6, 12, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"volumes \[1\] of the batch have no valid slice"):
        small_encoder()(torch.randn(2, 8, 12), torch.tensor([[True] * 8, [False] * 8]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"blocks": 0}, "blocks is 0; f_inter has at least one"),
        ({"width": 3}, "width is 3 and downsample 4; a step cannot be longer than the sequence"),
    ],
)
def test_sizes_that_cannot_be_combined_are_refused(change: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ReleasedVolumeEncoder(**(SMALL | change))


def test_neither_forward_nor_backward_asks_the_device_for_a_number() -> None:
    # Tensors on meta have no values: whatever needs one on the host, and so waits for a GPU, fails.
    encoder = ReleasedVolumeEncoder(**SMALL).to("meta")
    embeddings = torch.randn(2, 8, 12, device="meta", requires_grad=True)
    valid = torch.ones(2, 8, dtype=torch.bool, device="meta")
    volume_embedding(encoder(embeddings, valid), valid).sum().backward()
    assert embeddings.grad is not None
    assert embeddings.grad.shape == (2, 8, 12)
    assert all(parameter.grad is not None for parameter in encoder.parameters())
