"""Weights of another library arrive in VISSL's model as they were."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torchvision
from vissl.config import AttrDict
from vissl.models import build_model
from vissl.utils.checkpoint import init_model_from_consolidated_weights

from vissl_jointssl.checkpoints.importing import write_imported
from vissl_jointssl.plugin.config import prepare
from vissl_jointssl.plugin.config_faults import ConfigError


@pytest.fixture(scope="module")
def resnet() -> torch.nn.Module:
    """A ResNet-50 whose BatchNorm does something."""
    torch.manual_seed(0)
    model = torchvision.models.resnet50(weights=None)
    for name, buffer in model.named_buffers():
        if name.endswith("running_var"):
            buffer.uniform_(0.5, 2)
        elif name.endswith("running_mean"):
            buffer.normal_(std=0.1)
    model.fc = torch.nn.Identity()
    return model.eval()


def test_stage_1_starts_from_imported_weights_with_the_features_of_their_library(
    resnet: torch.nn.Module, config_of: Callable[..., AttrDict], tmp_path: Path
) -> None:
    torch.save(
        {"state_dict": {f"module.{name}": value for name, value in resnet.state_dict().items()}}, tmp_path / "r.pth"
    )
    stage0 = tmp_path / "stage0.torch"
    write_imported(tmp_path / "r.pth", stage0)
    config = prepare(config_of("stage1_swav", parent=stage0))
    assert (config.JOINT_SSL.RECORD["parent_stage"], len(config.JOINT_SSL.RECORD["parent"])) == (None, 64)
    model = build_model(config.MODEL, config.OPTIMIZER)
    init = config.MODEL.WEIGHTS_INIT
    # What VISSL's trainer does with PARAMS_FILE (vissl/trainer/train_task.py:489).
    init_model_from_consolidated_weights(
        config,
        model,
        torch.load(stage0, weights_only=True),
        state_dict_key_name=init.STATE_DICT_KEY_NAME,
        skip_layers=init.SKIP_LAYERS,
        replace_prefix=init.REMOVE_PREFIX,
        append_prefix=init.APPEND_PREFIX,
    )
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        (features,) = model.eval().trunk(images, ["res5avg"])
        # The layout of both is the same, and so is every sum.
        there = resnet.to(memory_format=torch.channels_last)
        torch.testing.assert_close(features.flatten(1), there(images), atol=1e-6, rtol=0)


def test_stages_2_and_3_take_them_as_f_intra_when_allowed(
    resnet: torch.nn.Module, config_of: Callable[..., AttrDict], tmp_path: Path
) -> None:
    torch.save(resnet.state_dict(), tmp_path / "resnet50.pth")
    stage0 = tmp_path / "stage0.torch"
    write_imported(tmp_path / "resnet50.pth", stage0)
    allowed = "+config.JOINT_SSL.ALLOW_UNRECORDED_PARENT=True"
    prepare(config_of("stage2_swav", allowed, parent=stage0))
    batch = "config.DATA.TRAIN.BATCHSIZE_PER_REPLICA=4"
    prepare(config_of("ablations/without_mask_prediction_swav", allowed, batch, parent=stage0))
    with pytest.raises(ConfigError, match="no stage record"):
        prepare(config_of("stage2_swav", parent=stage0))


def test_a_foreign_file_is_answered_with_the_verb_that_imports_it(
    resnet: torch.nn.Module, config_of: Callable[..., AttrDict], tmp_path: Path
) -> None:
    torch.save(resnet.state_dict(), tmp_path / "resnet50.pth")
    with pytest.raises(ConfigError, match=r"PARAMS_FILE: .*resnet50\.pth: not a VISSL .* by `jointssl import FILE"):
        prepare(config_of("stage1_swav", parent=tmp_path / "resnet50.pth"))
