from __future__ import annotations

import pytest
import torch

from vissl_jointssl.models.attention_axis import (
    ATTENTION_AXES,
    PRESETS,
    NoVolumeEncoder,
    build_volume_encoder,
    volume_encoder_options,
)
from vissl_jointssl.models.released_volume_encoder import ReleasedVolumeEncoder
from vissl_jointssl.models.slice_encoder import embedding_width
from vissl_jointssl.models.volume_encoder import VolumeEncoder, volume_embedding


def test_each_axis_has_its_class_and_slice_is_the_default() -> None:
    assert type(build_volume_encoder()) is VolumeEncoder
    assert type(build_volume_encoder("embedding", slices=16)) is ReleasedVolumeEncoder
    assert type(build_volume_encoder("none", width=7)) is NoVolumeEncoder


def test_complete_options_rebuild_the_same_encoder_and_are_plain() -> None:
    given = {"downsample": [2, 1], "heads": 3, "offset_groups": 3}
    options = volume_encoder_options("slice", given)
    assert options["downsample"] == [2, 1]
    assert options["reference_length"] == 64
    assert volume_encoder_options("slice", options) == options
    shapes = [
        {name: value.shape for name, value in build_volume_encoder("slice", width=12, **some).state_dict().items()}
        for some in (given, options)
    ]
    assert shapes[0] == shapes[1]
    for axis in ATTENTION_AXES:
        plain = volume_encoder_options(axis, {})
        assert all(isinstance(value, int | float | list | None) for value in plain.values()), axis


def test_the_presets_are_the_papers_and_the_released_width() -> None:
    assert {name: (embedding_width(p.levels), p.attention_axis) for name, p in PRESETS.items()} == {
        "paper": (3904, "slice"),
        "released": (5888, "embedding"),
    }


def test_without_f_inter_a_volume_is_the_mean_of_its_slices() -> None:
    embeddings = torch.randn(2, 4, 6, dtype=torch.float64)
    valid = torch.tensor([[True, True, False, False], [True] * 4])
    poisoned = embeddings.masked_fill(~valid.unsqueeze(-1), float("nan"))
    outputs = build_volume_encoder("none", width=6)(poisoned, valid)
    assert (outputs[~valid] == 0).all()
    assert torch.equal(outputs[valid], embeddings[valid])
    found = volume_embedding(outputs, valid)
    for volume, length in enumerate([2, 4]):
        mean = embeddings[volume, :length].mean(dim=0)
        torch.testing.assert_close(found[volume], mean / mean.norm())


def test_without_f_inter_there_is_nothing_to_train() -> None:
    assert list(build_volume_encoder("none").state_dict()) == []


def test_an_unknown_axis_or_option_answers_with_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"unknown attention axis 'slices'; did you mean slice\?"):
        build_volume_encoder("slices")
    with pytest.raises(ValueError, match=r"along the embedding axis has no option 'slice'; did you mean slices\?"):
        build_volume_encoder("embedding", slice=64)
    with pytest.raises(ValueError, match="the attention axis none has no f_inter, so it takes no option 'heads'"):
        build_volume_encoder("none", heads=4)
