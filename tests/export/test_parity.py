from __future__ import annotations

import importlib

import pytest
import torch
from torch import Tensor

from vissl_jointssl.export.parity import parity_images, resnet_features


def test_the_walk_equals_the_trunk_that_vissl_trains(f_intra: dict[str, Tensor]) -> None:
    importlib.import_module("vissl_jointssl.plugin")  # first, because it makes VISSL importable
    attr_dict = importlib.import_module("vissl.config").AttrDict
    res_next = importlib.import_module("vissl.models.trunks.resnext").ResNeXt
    resnet = {
        "DEPTH": 50,
        "WIDTH_MULTIPLIER": 1,
        "NORM": "BatchNorm",
        "GROUPS": 1,
        "ZERO_INIT_RESIDUAL": False,
        "WIDTH_PER_GROUP": 64,
        "LAYER4_STRIDE": 2,
        "GROUPNORM_GROUPS": 32,
        "STANDARDIZE_CONVOLUTIONS": False,
    }
    checkpointing = {"USE_ACTIVATION_CHECKPOINTING": False, "NUM_ACTIVATION_CHECKPOINTING_SPLITS": 2}
    config = attr_dict({"TRUNK": {"RESNETS": resnet}, "ACTIVATION_CHECKPOINTING": checkpointing, "INPUT_TYPE": "rgb"})
    trunk = res_next(config, "resnet").eval()
    trunk.load_state_dict({f"_feature_blocks.{name}": weight for name, weight in f_intra.items()})
    images = parity_images()

    with torch.no_grad():
        (expected,) = trunk(images, ["flatten"])

    features = resnet_features(f_intra, images)
    assert features.shape == (2, 2048)
    assert torch.allclose(features, expected, atol=1e-5, rtol=0)
    assert expected.std() > 0.01  # features that are all alike would agree with anything


def test_the_parity_input_is_always_the_same() -> None:
    torch.manual_seed(1)
    first = parity_images()
    torch.manual_seed(2)
    assert torch.equal(first, parity_images())


@pytest.mark.parametrize("name", ["layer3.2.bn2.running_mean", "layer4.0.downsample.0.weight", "bn1.bias"])
def test_a_change_of_one_weight_shows_in_the_features(f_intra: dict[str, Tensor], name: str) -> None:
    changed = {**f_intra, name: f_intra[name] * 1.1 + 0.01}
    difference = (resnet_features(f_intra, parity_images(64)) - resnet_features(changed, parity_images(64))).abs().max()
    assert difference > 1e-4
