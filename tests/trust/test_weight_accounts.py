"""No door takes weights that do not fit: each refuses with names and shapes, or says what it took from where."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torchvision
from torch import Tensor, nn

from vissl_jointssl import load_pretrained
from vissl_jointssl.checkpoints import CheckpointError, StageRecord, hand_over, read_checkpoint
from vissl_jointssl.checkpoints.importing import import_resnet50
from vissl_jointssl.evaluation.initialisation import read_initialisation
from vissl_jointssl.export.account import ExportError
from vissl_jointssl.export.torchvision import export_torchvision
from vissl_jointssl.plugin.config import prepare
from vissl_jointssl.plugin.config_faults import ConfigError
from vissl_jointssl.plugin.launch import compose

# isort: split
from vissl.models import build_model
from vissl.utils.checkpoint import init_model_from_consolidated_weights
from vissl.utils.hydra_config import convert_to_attrdict

TRUNK = "_feature_blocks."


def _zeros(network: str) -> dict[str, Tensor]:
    """Weights of a network as zeros that take no room on disk: every element is the same one."""
    with torch.device("meta"):
        state = getattr(torchvision.models, network)(weights=None).state_dict()
    return {
        name: torch.zeros((), dtype=value.dtype).expand(value.shape)
        for name, value in state.items()
        if not name.startswith("fc.")
    }


def _one_channel() -> dict[str, Tensor]:
    weights = _zeros("resnet50")
    weights["conv1.weight"] = weights["conv1.weight"][:, :1]
    return weights


def _two_prefixes() -> dict[str, Tensor]:
    """A network whose last block lies elsewhere, as after a rename that missed some names."""
    return {("b." if name.startswith("layer4") else "") + name: value for name, value in _zeros("resnet50").items()}


DEFECTS: dict[str, tuple[Callable[[], dict[str, Tensor]], str]] = {  # what is in the file: what every door must say
    "wrong prefix": (_two_prefixes, r"layer4"),
    "wrong architecture": (lambda: _zeros("resnet18"), r"layer|holds no ResNet-50"),
    "wrong channels": (_one_channel, r"conv1\.weight"),
}


@pytest.fixture
def write(tmp_path: Path) -> Callable[[dict[str, Tensor]], Path]:
    """A training checkpoint of stage 1 with these weights in its trunk."""

    def save(weights: dict[str, Tensor]) -> Path:
        model = {"model": {"trunk": {TRUNK + name: value for name, value in weights.items()}, "heads": {}}}
        hooks = {"StagedTrainingHook": {"record": StageRecord(1, "swav").to_dict()}}
        path = tmp_path / "model_final_checkpoint_phase0.torch"
        state = {"base_model": model, "hooks": hooks, "train_phase_idx": 0}
        torch.save({"classy_state_dict": state, "iteration": 1, "type": "consolidated"}, path)
        return path

    return save


DOORS: dict[str, Callable[[Path], object]] = {
    "import": import_resnet50,
    "evaluate": lambda path: read_initialisation("start", path),
    "load_pretrained": load_pretrained,
    "export": lambda path: export_torchvision(path, path.with_name("out.pth")),
}


@pytest.mark.parametrize("defect", DEFECTS)
@pytest.mark.parametrize("door", DOORS)
def test_weights_that_do_not_fit_are_refused_by_name(
    door: str, defect: str, write: Callable[[dict[str, Tensor]], Path], tmp_path: Path
) -> None:
    weights, words = DEFECTS[defect]
    with pytest.raises((CheckpointError, ExportError), match=words) as caught:
        DOORS[door](write(weights()))
    assert "model_final_checkpoint_phase0.torch" in str(caught.value)
    assert not (tmp_path / "out.pth").exists()


def test_the_account_of_a_partial_load_counts_what_is_missing(write: Callable[[dict[str, Tensor]], Path]) -> None:
    model = load_pretrained(write(_one_channel()), allow_partial=True)
    assert model.account.missing == ("conv1.weight",)
    assert "conv1.weight" in model.account.summary()
    # 318 = 53 convolutions + 53 BatchNorms * 5
    assert len(model.account.matched) == 317


def test_another_prefix_is_found_and_said(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save({f"somewhere.else.{name}": value for name, value in _zeros("resnet50").items()}, path)
    _, account = import_resnet50(path)
    assert account.prefix == "somewhere.else."
    assert "318 weights and buffers, renamed from somewhere.else.* to _feature_blocks.*" in account.summary()
    assert "somewhere.else.*" in read_initialisation("start", path).account


def test_a_trunk_under_another_name_is_not_handed_over(write: Callable[[dict[str, Tensor]], Path]) -> None:
    path = write({})
    content = torch.load(path, weights_only=True)
    trunk = {f"backbone.{name}": value for name, value in _zeros("resnet50").items()}
    content["classy_state_dict"]["base_model"]["model"]["trunk"] = trunk
    torch.save(content, path)
    child = StageRecord(2, "swav", levels=("res5",), slice_embedding_width=2048, embedding_width=640)
    with pytest.raises(CheckpointError, match=r"its trunk has no weights called _feature_blocks\.\*"):
        hand_over(read_checkpoint(path), child, [TRUNK + name for name in _zeros("resnet50")])


@pytest.mark.parametrize(
    ("kept", "words"),
    [(1, r"lacks 264 of the 265 weights called _feature_blocks\.\*, first _feature_blocks\.bn1\.weight"), (265, "")],
)
def test_a_stage_does_not_start_from_a_part_of_f_intra(
    kept: int, words: str, write: Callable[[dict[str, Tensor]], Path], tiny_manifest: Path, tmp_path: Path
) -> None:
    weights = {name: value for name, value in _zeros("resnet50").items() if not name.endswith("num_batches_tracked")}
    path = write(dict(list(weights.items())[:kept]))
    overrides = ["config=jointssl/stage2_swav", f"config.CHECKPOINT.DIR='{tmp_path}'"]
    overrides += [
        f"config.DATA.TRAIN.DATA_PATHS=['{tiny_manifest}']",
        f"config.MODEL.WEIGHTS_INIT.PARAMS_FILE='{path}'",
    ]
    overrides += ["config.DATA.TRAIN.BATCHSIZE_PER_REPLICA=2", "config.DISTRIBUTED.NUM_PROC_PER_NODE=1"]
    _, config = convert_to_attrdict(compose(overrides), dump_config=False)
    with pytest.raises(ConfigError, match=words) if words else contextlib.nullcontext():
        prepare(config)


@pytest.fixture(scope="module")
def stage_1(tiny_manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[object, nn.Module]:
    folder = tmp_path_factory.mktemp("stage1")
    overrides = ["config=jointssl/stage1_swav", f"config.CHECKPOINT.DIR='{folder}'"]
    overrides += [f"config.DATA.TRAIN.DATA_PATHS=['{tiny_manifest}']", "config.DATA.TRAIN.BATCHSIZE_PER_REPLICA=1"]
    _, config = convert_to_attrdict(compose(overrides), dump_config=False)
    config = prepare(config)
    return config, build_model(config.MODEL, config.OPTIMIZER)


@pytest.mark.parametrize("defect", ["wrong architecture", "wrong channels"])
def test_vissl_does_not_start_a_stage_from_weights_of_another_shape(
    defect: str, stage_1: tuple, write: Callable[[dict[str, Tensor]], Path]
) -> None:
    config, model = stage_1
    init = config.MODEL.WEIGHTS_INIT
    with pytest.raises(AssertionError, match=r"have different shapes"):
        init_model_from_consolidated_weights(  # what VISSL's trainer does with PARAMS_FILE, train_task.py:489
            config,
            model,
            torch.load(write(DEFECTS[defect][0]()), weights_only=True),
            state_dict_key_name=init.STATE_DICT_KEY_NAME,
            skip_layers=init.SKIP_LAYERS,
            replace_prefix=init.REMOVE_PREFIX,
            append_prefix=init.APPEND_PREFIX,
        )
