"""The trunk that both worlds share."""

from __future__ import annotations

import copy

import pytest
import torch

import vissl_jointssl.plugin  # noqa: F401 - makes VISSL importable
from vissl_jointssl.models.slice_encoder import encode_slices
from vissl_jointssl.models.volume_encoder import volume_embedding

# isort: split
from vissl.config import AttrDict
from vissl.models.trunks import get_model_trunk
from vissl.utils.hydra_config import compose_hydra_configuration, convert_to_attrdict


@pytest.fixture(scope="module")
def stock_config() -> AttrDict:
    _, config = convert_to_attrdict(
        compose_hydra_configuration(["config=pretrain/swav/swav_8node_resnet"]), dump_config=False
    )
    return config.MODEL


def _trunk(stock_config: AttrDict, **section: object) -> torch.nn.Module:
    config = copy.deepcopy(stock_config)
    config.TRUNK["JOINT_SSL"] = AttrDict(section)
    torch.manual_seed(0)
    return get_model_trunk("joint_trunk")(config, "joint_trunk")


@pytest.fixture(scope="module")
def volumes() -> torch.Tensor:
    return torch.rand(2, 4, 1, 32, 32, generator=torch.Generator().manual_seed(0))


def test_its_resnet_keys_are_the_stock_trunks_keys(stock_config: AttrDict) -> None:
    stock = get_model_trunk("resnet")(stock_config, "resnet").state_dict()
    ours = _trunk(stock_config, STAGE=3).state_dict()
    shared = {name for name in ours if name.startswith("_feature_blocks.")}
    assert shared == set(stock)
    assert {name.split(".")[0] for name in set(ours) - shared} == {"slice_projection", "volume_encoder"}


def test_no_name_would_put_a_weight_among_visslls_head_parameters(stock_config: AttrDict) -> None:
    # vissl/utils/optimizer_helper.py sorts by the substring "head", vissl/utils/checkpoint.py:875 by "pos_embedding".
    names = [name for name, _ in _trunk(stock_config, STAGE=2).named_modules()]
    names += [name for name, _ in _trunk(stock_config, STAGE=2).named_parameters()]
    assert not [name for name in names if "head" in name or "pos_embedding" in name]


def test_stage_3_gives_unit_volume_embeddings(stock_config: AttrDict, volumes: torch.Tensor) -> None:
    trunk = _trunk(stock_config, STAGE=3).eval()
    (embeddings,) = trunk(volumes)
    assert embeddings.shape == (2, 640)
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(2))


def test_features_come_in_the_order_they_are_asked_for(stock_config: AttrDict, volumes: torch.Tensor) -> None:
    trunk = _trunk(stock_config).eval()
    slices, volume = trunk(volumes, ["slices", "volume"])
    assert slices.shape == (2, 4, 640)
    torch.testing.assert_close(volume, volume_embedding(slices))


def test_a_padded_volume_is_encoded_as_without_padding(stock_config: AttrDict, volumes: torch.Tensor) -> None:
    trunk = _trunk(stock_config, STAGE=3).eval()
    padding = torch.full((2, 3, 1, 32, 32), float("nan"))
    (padded,) = trunk(torch.cat([volumes, padding], dim=1))
    torch.testing.assert_close(padded, trunk(volumes)[0], atol=1e-5, rtol=0)


def test_stage_2_targets_are_the_frozen_embeddings_and_only_hidden_slices_are_masked(
    stock_config: AttrDict, volumes: torch.Tensor
) -> None:
    trunk = _trunk(stock_config, STAGE=2).train()
    (masked,) = trunk(volumes)
    assert masked.target.shape == (2, 4, 3904)
    assert not masked.target.requires_grad
    assert masked.mask.sum(dim=1).tolist() == [1, 1]
    # each of the five levels is a unit vector
    torch.testing.assert_close(masked.target.norm(dim=-1), torch.full((2, 4), 5**0.5))


def test_stage_2_trains_everything_but_the_resnet(stock_config: AttrDict, volumes: torch.Tensor) -> None:
    trunk = _trunk(stock_config, STAGE=2).train()
    before = {name: value.clone() for name, value in trunk.state_dict().items() if name.startswith("_feature_blocks.")}
    trunk(volumes)[0].outputs.square().sum().backward()
    trainable = {name for name, parameter in trunk.named_parameters() if parameter.grad is not None}
    assert {name.split(".")[0] for name in trainable} == {"slice_projection", "volume_encoder", "mask_token"}
    assert all(parameter.grad is not None for parameter in trunk.parameters() if parameter.requires_grad)
    for name, value in before.items():
        assert torch.equal(trunk.state_dict()[name], value), name


def test_an_image_batch_is_refused(stock_config: AttrDict) -> None:
    with pytest.raises(ValueError, match=r"takes volumes \(B, F, C, H, W\); got a tensor of shape \(2, 3, 32, 32\)"):
        _trunk(stock_config)(torch.rand(2, 3, 32, 32))


def test_an_unknown_feature_answers_with_the_nearest(stock_config: AttrDict, volumes: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"no feature 'volumes'; did you mean volume\?"):
        _trunk(stock_config).eval()(volumes, ["volumes"])


def test_an_unknown_option_answers_with_the_nearest(stock_config: AttrDict) -> None:
    with pytest.raises(ValueError, match=r"MASK_RATO is read by nothing; did you mean MASK_RATIO\?"):
        _trunk(stock_config, MASK_RATO=0.1)
    with pytest.raises(ValueError, match=r"VOLUME_ENCODER\.downsamples is read by nothing .*; did you mean downsample"):
        _trunk(stock_config, VOLUME_ENCODER={"downsamples": [1]})
    with pytest.raises(ValueError, match=r"ATTENTION_AXIS is 'embeding'; did you mean embedding\?"):
        _trunk(stock_config, ATTENTION_AXIS="embeding")
    with pytest.raises(ValueError, match=r"PRESET is 'relaesed'; did you mean released\?"):
        _trunk(stock_config, PRESET="relaesed")


# --- the other axes


def test_the_released_preset_is_one_word_with_the_size_of_table_7(stock_config: AttrDict) -> None:
    trunk = _trunk(stock_config, STAGE=3, PRESET="released")
    assert sum(parameter.numel() for parameter in trunk.parameters()) == 31_162_884


def test_what_is_named_beside_a_preset_wins_and_null_leaves_it(stock_config: AttrDict) -> None:
    trunk = _trunk(stock_config, STAGE=3, PRESET="released", LEVELS=["res5"], ATTENTION_AXIS=None)
    assert trunk.slice_projection.in_features == 2048
    assert trunk.volume_encoder.blocks[0].attention.slices == 64


EMBEDDING = {"ATTENTION_AXIS": "embedding", "VOLUME_ENCODER": {"slices": 4, "offset_groups": 4}}


@pytest.mark.parametrize("section", [EMBEDDING, {"ATTENTION_AXIS": "none"}], ids=["embedding", "none"])
def test_stage_3_trains_every_weight_of_each_axis(
    stock_config: AttrDict, volumes: torch.Tensor, section: dict[str, object]
) -> None:
    trunk = _trunk(stock_config, STAGE=3, **section).train()
    (embeddings,) = trunk(volumes)
    assert embeddings.shape == (2, 640)
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(2))
    embeddings[:, 0].sum().backward()
    assert [name for name, parameter in trunk.named_parameters() if parameter.grad is None] == []


def test_stage_2_runs_along_the_embedding_axis(stock_config: AttrDict, volumes: torch.Tensor) -> None:
    trunk = _trunk(stock_config, STAGE=2, **EMBEDDING).train()
    (masked,) = trunk(volumes)
    assert masked.outputs.shape == (2, 4, 640)
    masked.outputs.square().sum().backward()
    assert all(parameter.grad is not None for parameter in trunk.parameters() if parameter.requires_grad)


def test_without_projection_z_is_the_mean_of_the_multi_level_embeddings(
    stock_config: AttrDict, volumes: torch.Tensor
) -> None:
    trunk = _trunk(stock_config, ATTENTION_AXIS="none", SLICE_PROJECTION=False).eval()
    assert {name.split(".")[0] for name in trunk.state_dict()} == {"_feature_blocks"}
    padded = torch.cat([volumes, torch.full((2, 3, 1, 32, 32), float("nan"))], dim=1)
    (z,) = trunk(padded, ["volume"])
    assert z.shape == (2, 3904)
    mean = encode_slices(trunk._feature_blocks, volumes).mean(dim=1)
    torch.testing.assert_close(z, torch.nn.functional.normalize(mean, dim=1), atol=1e-5, rtol=0)


# --- recomputed blocks


def _stepped(stock_config: AttrDict, volumes: torch.Tensor, recompute: str) -> torch.nn.Module:
    trunk = _trunk(stock_config, STAGE=3, RECOMPUTE=recompute, VOLUME_ENCODER={"dropout": 0.0}).double().train()
    trunk.passes = []
    trunk.get_submodule("_feature_blocks.layer2.0.conv2").register_forward_hook(lambda *_: trunk.passes.append(1))
    trunk(volumes.double())[0][:, ::3].sum().backward()
    return trunk


def test_recomputed_blocks_change_neither_gradients_nor_statistics(
    stock_config: AttrDict, volumes: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    # what it sets in glibc's malloc would stay for the rest of the tests
    monkeypatch.setattr("vissl_jointssl.plugin.recompute_choice.give_back_freed_maps", lambda: True)
    plain, again = (_stepped(stock_config, volumes, recompute) for recompute in ("none", "blocks"))
    assert (len(plain.passes), len(again.passes)) == (1, 2)
    for name, parameter in again.named_parameters():
        torch.testing.assert_close(parameter.grad, plain.get_parameter(name).grad, atol=1e-12, rtol=1e-10)
    for name, buffer in again.named_buffers():
        assert torch.equal(buffer, plain.get_buffer(name)), name


def test_nothing_is_chosen_before_a_step_trains(
    stock_config: AttrDict, volumes: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "vissl_jointssl.plugin.recompute_choice.RecomputeChoice.blocks_at_once", lambda *_: pytest.fail("chosen")
    )
    trunk = _trunk(stock_config, STAGE=3)
    with torch.no_grad():
        trunk.train()(volumes)  # micro-batches' first pass
    trunk.eval()(volumes)
    _trunk(stock_config, STAGE=2).train()(volumes)
