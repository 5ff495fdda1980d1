"""From starts to networks: the weights of a file arrive, all of them, and give what VISSL's trunk gives."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torchvision

import vissl_jointssl.plugin  # noqa: F401 - makes VISSL importable
from vissl_jointssl.checkpoints import Checkpoint, CheckpointError, StageRecord
from vissl_jointssl.evaluation.encoders import (
    build_joint_encoder,
    build_slice_encoder,
    encoder_account,
    encoder_faults,
    slices_needed,
)
from vissl_jointssl.evaluation.initialisation import Initialisation, read_initialisation
from vissl_jointssl.models.attention_axis import volume_encoder_options
from vissl_jointssl.models.joint_encoder import JointEncoder, joint_encoder_of
from vissl_jointssl.models.slice_encoder import PAPER_LEVELS, embedding_width

# isort: split
from vissl.config import AttrDict
from vissl.models.trunks import get_model_trunk
from vissl.utils.hydra_config import compose_hydra_configuration, convert_to_attrdict

PAPER = ("slice", {"downsample": [2, 1]})
EMBEDDING = ("embedding", {"slices": 4, "offset_groups": 4})
NONE = ("none", {})


@pytest.fixture(scope="module")
def stock_config() -> AttrDict:
    _, config = convert_to_attrdict(
        compose_hydra_configuration(["config=pretrain/swav/swav_8node_resnet"]), dump_config=False
    )
    return config.MODEL


@pytest.fixture(scope="module")
def make_trunk(stock_config: AttrDict) -> Callable[..., torch.nn.Module]:
    def make(axis: str, options: dict[str, object], stage: int = 3) -> torch.nn.Module:
        config = copy.deepcopy(stock_config)
        section = {"STAGE": stage, "ATTENTION_AXIS": axis, "VOLUME_ENCODER": options, "LEVELS": ["res1", "res2"]}
        config.TRUNK["JOINT_SSL"] = AttrDict(section)
        torch.manual_seed(0)
        return get_model_trunk("joint_trunk")(config, "joint_trunk")

    return make


def checkpoint_of(trunk: torch.nn.Module, axis: str, options: dict[str, object], stage: int = 3) -> Checkpoint:
    record = StageRecord(
        stage=stage,
        flavour="swav",
        slice_embedding_width=embedding_width(("res1", "res2")),
        embedding_width=640,
        levels=("res1", "res2"),
        volume_encoder={"attention_axis": axis, **volume_encoder_options(axis, options)},
    )
    heads = {"0.prototypes0.weight": torch.zeros(5, 640)}
    return Checkpoint(Path("model.torch"), dict(trunk.state_dict()), heads, record, 1, 1, True)


@pytest.fixture(scope="module")
def volumes() -> torch.Tensor:
    """Two of four slices, the second of them padded by one."""
    batch = torch.rand(2, 4, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    batch[1, 3] = torch.nan
    return batch


@pytest.fixture(scope="module")
def slice_encoder() -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    state = torchvision.models.resnet50(weights=None).state_dict()
    return {name: value for name, value in state.items() if not name.startswith("fc.")}


@pytest.mark.parametrize(("axis", "options"), [PAPER, EMBEDDING, NONE], ids=["slice", "embedding", "none"])
@torch.no_grad()
def test_a_checkpoint_gives_the_embeddings_of_vissls_trunk(
    make_trunk: Callable[..., torch.nn.Module], volumes: torch.Tensor, axis: str, options: dict[str, object]
) -> None:
    trunk = make_trunk(axis, options).eval()
    encoder, dropped = joint_encoder_of(checkpoint_of(trunk, axis, options))
    assert dropped == ("heads.0.prototypes0.weight",)
    assert not encoder.training
    slices, volume = trunk(volumes, ["slices", "volume"])
    torch.testing.assert_close(encoder(volumes), volume, atol=1e-5, rtol=0)
    torch.testing.assert_close(encoder.encoded(volumes), slices, atol=1e-5, rtol=0)
    assert encoder.slices(volumes).shape == (2, 4, 320)
    assert not encoder.slices(volumes)[1, 3].any()


@torch.no_grad()
def test_stage_2s_mask_token_has_no_place_and_is_named(
    make_trunk: Callable[..., torch.nn.Module], volumes: torch.Tensor
) -> None:
    trunk = make_trunk(*PAPER, stage=2)
    encoder, dropped = joint_encoder_of(checkpoint_of(trunk, *PAPER, stage=2))
    assert dropped == ("mask_token", "heads.0.prototypes0.weight")
    assert encoder(volumes).shape == (2, 640)


def test_valid_says_the_same_as_nan(volumes: torch.Tensor) -> None:
    torch.manual_seed(0)
    encoder = JointEncoder(["res1"], "slice", 32, {"downsample": [1]}).eval()
    filled = volumes.nan_to_num(0.5)
    valid = torch.tensor([[True] * 4, [True, True, True, False]])
    assert torch.equal(encoder(filled, valid), encoder(volumes))
    assert not torch.equal(encoder(filled), encoder(volumes))
    torch.testing.assert_close(encoder(volumes).norm(dim=1), torch.ones(2))


def test_a_record_of_before_there_were_axes_means_the_slices(make_trunk: Callable[..., torch.nn.Module]) -> None:
    checkpoint = checkpoint_of(make_trunk(*PAPER), *PAPER)
    assert checkpoint.record is not None
    options = {k: v for k, v in (checkpoint.record.volume_encoder or {}).items() if k != "attention_axis"}
    old = replace(checkpoint, record=replace(checkpoint.record, volume_encoder=options))
    assert len(joint_encoder_of(old)[0].volume_encoder.get_submodule("blocks")._modules) == 2


def test_weights_that_are_not_the_records_are_refused_with_every_fault(
    make_trunk: Callable[..., torch.nn.Module],
) -> None:
    checkpoint = checkpoint_of(make_trunk(*PAPER), *PAPER)
    trunk = {name: weight for name, weight in checkpoint.trunk.items() if name != "slice_projection.bias"}
    trunk["stranger"] = torch.zeros(1)
    trunk["slice_projection.weight"] = torch.zeros(640, 3)
    name = "volume_encoder.input_norm.weight"
    trunk[name] = torch.full_like(trunk[name], torch.nan)
    with pytest.raises(CheckpointError) as raised:
        joint_encoder_of(replace(checkpoint, trunk=trunk))
    for part in (
        "1 weights are absent: slice_projection.bias",
        "1 weights have no place in it: stranger",
        "slice_projection.weight is (640, 3), expected (640, 320)",
        f"1 weights are NaN or infinite: {name}",
    ):
        assert part in str(raised.value)


def test_checkpoints_without_f_inter_are_refused() -> None:
    stage1 = Checkpoint(Path("a.torch"), {}, {}, StageRecord(stage=1, flavour="swav"), None, None, True)
    with pytest.raises(CheckpointError, match=r"a.torch: is of stage 1, which trains f_intra alone"):
        joint_encoder_of(stage1)
    with pytest.raises(CheckpointError, match=r"a.torch: has no stage record"):
        joint_encoder_of(replace(stage1, record=None))
    odd = StageRecord(
        stage=3, flavour="swav", levels=("res1",), embedding_width=640, volume_encoder={"headz": 3}, version="9"
    )
    with pytest.raises(CheckpointError, match=r"no option 'headz'; did you mean heads\?.*written by version 9"):
        joint_encoder_of(replace(stage1, record=odd))


def test_d_is_e_only_without_f_inter() -> None:
    assert JointEncoder(PAPER_LEVELS, "none", None).width == 3904
    with pytest.raises(ValueError, match=r"width is None, but f_inter along the slice axis reads projected slices"):
        JointEncoder(PAPER_LEVELS, "slice", None)


# --- starts


def test_a_resnets_weights_arrive_whole_and_the_rest_is_drawn(slice_encoder: dict[str, torch.Tensor]) -> None:
    start = Initialisation("net", Path("net.pth"), "0", slice_encoder)
    torch.manual_seed(3)
    encoder = build_joint_encoder(start)
    state = encoder.slice_encoder.state_dict()
    assert state.keys() == slice_encoder.keys()
    assert all(torch.equal(state[name], value) for name, value in slice_encoder.items())
    torch.manual_seed(3)
    again = build_joint_encoder(start)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in encoder.state_dict().items())
    assert encoder.training
    assert encoder.width == 640
    assert encoder.levels == PAPER_LEVELS


@torch.no_grad()
def test_slice_embeddings_of_a_start_are_torchvisions_features(slice_encoder: dict[str, torch.Tensor]) -> None:
    encoder = build_slice_encoder(Initialisation("net", Path("net.pth"), "0", slice_encoder), ["res5"]).eval()
    model = torchvision.models.resnet50(weights=None).eval()
    model.fc = torch.nn.Identity()
    model.load_state_dict(slice_encoder)
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    expected = torch.nn.functional.normalize(model(image), dim=1)
    torch.testing.assert_close(encoder.slices(image[:, None])[:, 0], expected, atol=1e-5, rtol=0)


def test_f_inter_of_a_checkpoint_is_taken_and_the_options_for_others_are_not(
    make_trunk: Callable[..., torch.nn.Module],
) -> None:
    checkpoint = checkpoint_of(make_trunk(*EMBEDDING), *EMBEDDING)
    start = Initialisation("stage3", Path("a.torch"), "0", {}, checkpoint)
    encoder = build_joint_encoder(start, preset="paper", levels=PAPER_LEVELS)
    assert encoder.training
    assert encoder.levels == ("res1", "res2")
    assert all(torch.equal(value, checkpoint.trunk[name]) for name, value in encoder.state_dict().items())
    assert slices_needed(start) == 4
    assert slices_needed(Initialisation("scratch")) is None


def test_a_random_f_inter_of_the_released_preset_reads_the_asked_number_of_slices() -> None:
    with torch.device("meta"):
        encoder = build_joint_encoder(Initialisation("scratch"), preset="released", slices=32)
        assert encoder.volume_encoder.get_submodule("blocks.0.attention").slices == 32
    with pytest.raises(ValueError, match=r"no preset of f_inter is called 'papper'; did you mean paper\?"):
        build_joint_encoder(Initialisation("scratch"), preset="papper")


def test_half_a_resnet_is_refused(slice_encoder: dict[str, torch.Tensor]) -> None:
    half = {name: value for name, value in slice_encoder.items() if not name.startswith("layer4")}
    with pytest.raises(CheckpointError, match=r"net.pth: not exactly a ResNet-50"):
        build_joint_encoder(Initialisation("net", Path("net.pth"), "0", half))


def test_the_account_names_what_came_from_the_file_and_what_did_not(
    make_trunk: Callable[..., torch.nn.Module], slice_encoder: dict[str, torch.Tensor]
) -> None:
    checkpoint = checkpoint_of(make_trunk(*PAPER, stage=2), *PAPER, stage=2)
    start = Initialisation("stage2", Path("a.torch"), "0", {}, checkpoint)
    account = encoder_account(start, build_joint_encoder(start))
    total = len(checkpoint.trunk) - 1
    assert account == (
        f"stage2: {total} weights and buffers of {total} from a.torch, 0 random; "
        "of the file not used: mask_token, heads.0.prototypes0.weight"
    )
    net = Initialisation("net", Path("net.pth"), "0", slice_encoder)
    account = encoder_account(net, build_joint_encoder(net))
    assert f"net: {len(slice_encoder)} weights and buffers of " in account
    assert ", 0 random" not in account
    alone = build_slice_encoder(start := replace(start, slice_encoder=slice_encoder), ["res1"])
    assert "slice_projection.weight" in encoder_account(replace(start, name="x"), alone)


def test_faults_are_words_and_load_nothing(
    make_trunk: Callable[..., torch.nn.Module], slice_encoder: dict[str, torch.Tensor]
) -> None:
    checkpoint = checkpoint_of(make_trunk(*PAPER), *PAPER)
    start = Initialisation("stage3", Path("a.torch"), "0", {}, checkpoint)
    assert encoder_faults(start, build_joint_encoder) == []
    assert encoder_faults(Initialisation("net", Path("n.pth"), "0", slice_encoder), build_joint_encoder) == []
    broken = replace(start, checkpoint=replace(checkpoint, trunk={}))
    (fault,) = encoder_faults(broken, build_joint_encoder)
    assert "weights are absent" in fault
    (fault,) = encoder_faults(
        Initialisation("scratch"), lambda start: build_joint_encoder(start, preset="released", slices=30)
    )
    assert "30" in fault


def test_training_the_network_leaves_the_checkpoint_as_it_was(make_trunk: Callable[..., torch.nn.Module]) -> None:
    checkpoint = checkpoint_of(make_trunk(*PAPER), *PAPER)
    start = Initialisation("stage3", Path("a.torch"), "0", {}, checkpoint)
    encoder = build_joint_encoder(start)
    before = {name: value.clone() for name, value in checkpoint.trunk.items()}
    with torch.no_grad():
        for parameter in encoder.parameters():
            assert parameter.requires_grad
            parameter.add_(1)
    assert all(torch.equal(value, before[name]) for name, value in checkpoint.trunk.items())


@pytest.mark.slow
@torch.no_grad()
def test_a_trained_run_gives_f_intra_and_f_inter(trained: Path) -> None:
    start = read_initialisation("stage3", trained / "stage3")
    assert start.has_volume_encoder
    assert start.checkpoint is not None
    encoder = build_joint_encoder(start)
    assert all(torch.equal(value, start.checkpoint.trunk[name]) for name, value in encoder.state_dict().items())
    stage1 = read_initialisation("stage1", trained / "stage1")
    assert not stage1.has_volume_encoder
    assert build_joint_encoder(stage1).width == 640
