from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from vissl_jointssl.models.slice_encoder import (
    PAPER_LEVELS,
    RELEASED_LEVELS,
    SliceEncoder,
    embedding_width,
    encode_slices,
    feature_maps,
    multi_level_embedding,
)


class Chain(nn.Module):
    """A tiny trunk with VISSL's block names: each block doubles its channels' meaning by a fixed step."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleDict(
            {
                "conv1": nn.Conv2d(3, 4, 3, padding=1, bias=False),
                "bn1": nn.BatchNorm2d(4),
                "conv1_relu": nn.ReLU(inplace=True),
                "maxpool": nn.MaxPool2d(2),
                "layer1": nn.Conv2d(4, 5, 1),
                "layer2": nn.Conv2d(5, 6, 1),
                "layer3": nn.Conv2d(6, 7, 1),
                "layer4": nn.Conv2d(7, 8, 1),
                "avgpool": nn.AdaptiveAvgPool2d(1),
                "flatten": nn.Flatten(1),
            }
        )


@pytest.fixture
def blocks() -> nn.ModuleDict:
    torch.manual_seed(0)
    return Chain().blocks


def padded(volume: torch.Tensor, extra: int) -> torch.Tensor:
    batch, _, *rest = volume.shape
    return torch.cat([volume, torch.full((batch, extra, *rest), float("nan"))], dim=1)


@pytest.mark.parametrize(
    ("levels", "width"), [(PAPER_LEVELS, 3904), (RELEASED_LEVELS, 5888), (("res5",), 2048), (["res2", "res2"], 512)]
)
def test_widths_are_those_of_the_paper_the_released_code_and_the_ablation(levels: list[str], width: int) -> None:
    assert embedding_width(levels) == width


def test_an_unknown_level_answers_with_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"unknown level 'res_5'; did you mean res5\?"):
        embedding_width(["res2", "res_5"])


@pytest.mark.parametrize("levels", [[], "res5"])
def test_levels_must_be_a_list(levels: list[str] | str) -> None:
    with pytest.raises(ValueError, match="levels must be a list of names"):
        embedding_width(levels)


def test_maps_come_in_request_order_and_may_repeat(blocks: nn.ModuleDict) -> None:
    maps = feature_maps(blocks.eval(), torch.randn(2, 3, 8, 8), ["res5", "res1", "res5", "res3"])
    assert [level.shape[1] for level in maps] == [8, 4, 8, 6]
    assert torch.equal(maps[0], maps[2])


def test_nothing_runs_after_the_deepest_level(blocks: nn.ModuleDict) -> None:
    calls: list[str] = []
    for name, block in blocks.items():
        block.register_forward_hook(lambda *_, name=name: calls.append(name))
    feature_maps(blocks, torch.randn(1, 3, 8, 8), ["res2", "res1"])
    assert calls == ["conv1", "bn1", "conv1_relu", "maxpool", "layer1"]


def test_missing_blocks_are_named(blocks: nn.ModuleDict) -> None:
    del blocks["layer4"]
    with pytest.raises(ValueError, match=r"need the blocks \['layer4'\]"):
        feature_maps(blocks, torch.randn(1, 3, 8, 8), ["res1", "res5"])


def test_the_embedding_equals_a_loop_over_equation_9() -> None:
    maps = [torch.randn(3, 4, 5, 5, dtype=torch.float64), 100 * torch.randn(3, 2, 3, 3, dtype=torch.float64)]
    rows = []
    for image in range(3):
        row: list[float] = []
        for level in maps:
            means = [
                sum(level[image, channel].flatten().tolist()) / level[image, channel].numel()
                for channel in range(level.shape[1])
            ]
            length = sum(value**2 for value in means) ** 0.5
            row += [value / length for value in means]
        rows.append(row)
    torch.testing.assert_close(multi_level_embedding(maps), torch.tensor(rows, dtype=torch.float64))


def test_half_precision_maps_are_pooled_in_float32() -> None:
    # 4096 entries of 1 + 2^-7: summed in bfloat16 the small part is lost.
    level = torch.full((1, 1, 64, 64), 1.0078125, dtype=torch.bfloat16)
    other = torch.ones(1, 1, 64, 64, dtype=torch.bfloat16)
    embedding = multi_level_embedding([torch.cat([level, other], dim=1)])
    assert embedding.dtype == torch.float32
    torch.testing.assert_close(embedding[0, 0] / embedding[0, 1], torch.tensor(1.0078125))


def test_each_slice_is_embedded_as_if_alone(blocks: nn.ModuleDict) -> None:
    blocks.eval()
    volume = torch.randn(2, 3, 3, 8, 8)
    together = encode_slices(blocks, volume, ["res1", "res4"])
    assert together.shape == (2, 3, 4 + 7)
    for batch in range(2):
        for place in range(3):
            alone = encode_slices(blocks, volume[batch : batch + 1, place : place + 1], ["res1", "res4"])
            torch.testing.assert_close(together[batch, place], alone[0, 0])


def test_one_channel_equals_the_same_channel_three_times(blocks: nn.ModuleDict) -> None:
    blocks.eval()
    volume = torch.randn(2, 3, 1, 8, 8)
    one = encode_slices(blocks, volume, ["res5"])
    torch.testing.assert_close(one, encode_slices(blocks, volume.repeat(1, 1, 3, 1, 1), ["res5"]))


def test_another_number_of_channels_is_refused(blocks: nn.ModuleDict) -> None:
    with pytest.raises(ValueError, match="slices have 2 channels, but conv1 reads 3"):
        encode_slices(blocks, torch.randn(1, 2, 2, 8, 8), ["res5"])


def test_padded_slices_reach_neither_output_nor_batch_statistics(blocks: nn.ModuleDict) -> None:
    other = copy.deepcopy(blocks)
    volume = torch.randn(2, 3, 3, 8, 8)
    valid = torch.tensor([[True] * 3 + [False] * 2] * 2)
    with_padding = encode_slices(blocks, padded(volume, 2), ["res1", "res5"], valid)
    without = encode_slices(other, volume, ["res1", "res5"])
    assert torch.equal(with_padding[:, :3], without)
    assert (with_padding[:, 3:] == 0).all()
    for (name, seen), expected in zip(blocks.state_dict().items(), other.state_dict().values(), strict=True):
        assert torch.equal(seen, expected), name


def test_padded_slices_give_no_gradient(blocks: nn.ModuleDict) -> None:
    volume = torch.randn(1, 4, 3, 8, 8, requires_grad=True)
    encode_slices(blocks, volume, ["res5"], torch.tensor([[True, True, False, False]])).square().sum().backward()
    assert volume.grad is not None
    assert (volume.grad[:, 2:] == 0).all()
    assert volume.grad[:, :2].abs().sum() > 0


def test_a_mask_of_another_batch_is_refused(blocks: nn.ModuleDict) -> None:
    with pytest.raises(ValueError, match=r"valid \(1, 3\) does not fit volumes of shape \(1, 2, 3, 8, 8\)"):
        encode_slices(blocks, torch.randn(1, 2, 3, 8, 8), ["res5"], torch.ones(1, 3, dtype=torch.bool))


def test_the_encoder_reads_torchvision_levels_and_sees_padding_by_itself() -> None:
    torch.manual_seed(0)
    encoder = SliceEncoder().eval()
    volume = torch.randn(1, 2, 1, 32, 32)
    with torch.no_grad():
        embeddings = encoder(padded(volume, 1))
        images = volume[0].expand(-1, 3, -1, -1)
        deepest = images
        for name in ("conv1", "bn1", "conv1_relu", "maxpool", "layer1", "layer2", "layer3", "layer4"):
            deepest = encoder.blocks[name](deepest)
    assert embeddings.shape == (1, 3, encoder.embedding_width)
    expected = nn.functional.normalize(deepest.mean(dim=(2, 3)), dim=1)
    torch.testing.assert_close(embeddings[0, :2, -2048:], expected)
    torch.testing.assert_close(embeddings[0, :2].square().sum(dim=1), torch.full((2,), 5.0))
    assert (embeddings[0, 2] == 0).all()


def test_vissl_trunk_blocks_fit_as_they_are() -> None:
    import vissl_jointssl.plugin  # noqa: F401 - VISSL cannot be imported before it

    # isort: split
    from vissl.config import AttrDict
    from vissl.models.trunks.resnext import ResNeXt

    resnets = {"DEPTH": 50, "WIDTH_MULTIPLIER": 1, "NORM": "BatchNorm", "GROUPS": 1, "ZERO_INIT_RESIDUAL": False}
    resnets |= {"GROUPNORM_GROUPS": 32, "WIDTH_PER_GROUP": 64, "LAYER4_STRIDE": 2}
    config = AttrDict(
        {
            "INPUT_TYPE": "rgb",
            "ACTIVATION_CHECKPOINTING": {
                "USE_ACTIVATION_CHECKPOINTING": False,
                "NUM_ACTIVATION_CHECKPOINTING_SPLITS": 0,
            },
            "TRUNK": {"RESNETS": resnets},
        }
    )
    trunk = ResNeXt(config, "resnet").eval()
    volume = torch.randn(1, 2, 3, 32, 32)
    with torch.no_grad():
        embeddings = encode_slices(trunk._feature_blocks, volume)
        theirs = trunk(volume[0], list(PAPER_LEVELS))
    torch.testing.assert_close(embeddings[0], multi_level_embedding(theirs))
