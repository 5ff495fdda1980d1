"""Channels-last: the whole trunk computes in it, and no file and no number shows it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import vissl_jointssl.plugin  # noqa: F401 - makes VISSL importable
from vissl_jointssl.plugin.compat import memory_layout

# isort: split
from vissl import models
from vissl.config import AttrDict
from vissl.utils.hydra_config import compose_hydra_configuration, convert_to_attrdict


def _stock() -> AttrDict:
    _, config = convert_to_attrdict(
        compose_hydra_configuration(["config=pretrain/swav/swav_8node_resnet"]), dump_config=False
    )
    return config


def _layouts(model: nn.Module, images: Tensor) -> dict[str, bool]:
    """Whether each convolution's output is channels-last; maps of one pixel, which are both, are left out."""
    seen: dict[str, bool] = {}

    def look(name: str, output: Tensor) -> None:
        if output.shape[2] > 1:
            seen[name] = output.is_contiguous(memory_format=torch.channels_last)

    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda _, inputs, output, name=name: look(name, output))
    model(images)
    return seen


def test_every_map_of_the_trunk_is_channels_last_and_the_output_is_the_same() -> None:
    config = _stock()
    torch.manual_seed(0)
    ours = models.build_model(config.MODEL, config.OPTIMIZER).double().eval()
    torch.manual_seed(0)
    theirs = memory_layout._vissl_build_model(config.MODEL, config.OPTIMIZER).double().eval()
    images = torch.rand(2, 3, 48, 48, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(ours(images), theirs(images), rtol=1e-10, atol=1e-10)
    layouts = _layouts(ours, images)
    assert len(layouts) > 40
    assert all(layouts.values())
    assert not any(_layouts(theirs, images).values())


def test_a_checkpoint_has_the_usual_layout_and_loads_back() -> None:
    config = _stock()
    model = models.build_model(config.MODEL, config.OPTIMIZER)
    state = model.get_classy_state(deep_copy=True)
    weights = {**state["model"]["trunk"], **state["model"]["heads"]}
    assert len(weights) > 300
    assert all(weight.is_contiguous() for weight in weights.values())
    other = models.build_model(config.MODEL, config.OPTIMIZER)
    other.set_classy_state(state)
    for name, weight in other.state_dict().items():
        torch.testing.assert_close(weight, model.state_dict()[name], rtol=0, atol=0)
    assert other.trunk._feature_blocks.layer2[0].conv2.weight.is_contiguous(memory_format=torch.channels_last)
