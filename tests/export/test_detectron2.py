"""Detectron2 does not install here: its backbone is rebuilt from its documented names, and its matching by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import yaml
from torch import Tensor, nn
from torch.nn import functional

from vissl_jointssl.export.account import ExportAccount, ExportError
from vissl_jointssl.export.detectron2 import TARGET, detectron2_name, torchvision_name
from vissl_jointssl.export.parity import resnet_features
from vissl_jointssl.export.training_config import Normalisation

BLOCKS = {"res2": 3, "res3": 4, "res4": 6, "res5": 3}


class _FrozenNorm(nn.Module):
    """detectron2/layers/batch_norm.py: four buffers, no counter."""

    def __init__(self, width: int) -> None:
        super().__init__()
        for name in ("weight", "bias", "running_mean", "running_var"):
            self.register_buffer(name, torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return functional.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=1e-5)


class _Convolution(nn.Conv2d):
    """detectron2/layers/wrappers.py: the normalisation is a child of the convolution."""

    def __init__(self, inside: int, outside: int, size: int, stride: int = 1) -> None:
        super().__init__(inside, outside, size, stride, padding=size // 2, bias=False)
        self.norm = _FrozenNorm(outside)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(super().forward(x))


class _Block(nn.Module):
    """detectron2/modeling/backbone/resnet.py, BottleneckBlock with STRIDE_IN_1X1 False."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.shortcut = _Convolution(inside, outside, 1, stride) if inside != outside else None
        self.conv1 = _Convolution(inside, outside // 4, 1)
        self.conv2 = _Convolution(outside // 4, outside // 4, 3, stride)
        self.conv3 = _Convolution(outside // 4, outside, 1)

    def forward(self, x: Tensor) -> Tensor:
        inner = functional.relu(self.conv2(functional.relu(self.conv1(x))))
        return functional.relu(self.conv3(inner) + (x if self.shortcut is None else self.shortcut(x)))


class _Stem(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = _Convolution(3, 64, 7, 2)

    def forward(self, x: Tensor) -> Tensor:
        return functional.max_pool2d(functional.relu(self.conv1(x)), 3, 2, 1)


class _Backbone(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, width = _Stem(), 64
        for stage, (name, count) in enumerate(BLOCKS.items()):
            outside = 256 * 2**stage
            blocks = []
            for block in range(count):
                blocks.append(_Block(width, outside, 2 if stage and not block else 1))
                width = outside
            self.add_module(name, nn.Sequential(*blocks))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for name in BLOCKS:
            x = getattr(self, name)(x)
        return x.mean(dim=(2, 3))


@pytest.fixture(scope="module")
def account(exported: Callable[[str], ExportAccount]) -> ExportAccount:
    return exported("detectron2")


@pytest.fixture(scope="module")
def file(account: ExportAccount) -> dict:
    return torch.load(account.out, weights_only=True)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("conv1.weight", "stem.conv1.weight"),
        ("bn1.running_mean", "stem.conv1.norm.running_mean"),
        ("layer1.0.conv1.weight", "res2.0.conv1.weight"),
        ("layer1.2.bn3.bias", "res2.2.conv3.norm.bias"),
        ("layer4.0.downsample.0.weight", "res5.0.shortcut.weight"),
        ("layer4.0.downsample.1.running_var", "res5.0.shortcut.norm.running_var"),
    ],
)
def test_names_follow_detectron2s_documented_ones_and_back(ours: str, theirs: str) -> None:
    assert detectron2_name(ours) == theirs
    assert torchvision_name(theirs) == ours


def test_a_name_of_another_network_is_refused() -> None:
    with pytest.raises(ExportError, match=r"'fc\.weight' is not a weight of torchvision's resnet50"):
        detectron2_name("fc.weight")
    with pytest.raises(ExportError, match=r"'res2\.0\.conv1\.bn\.weight' is not a weight of Detectron2's ResNet"):
        torchvision_name("res2.0.conv1.bn.weight")


def test_a_backbone_of_detectron2s_structure_takes_every_weight_and_gives_the_same_features(
    file: dict, f_intra: dict[str, Tensor]
) -> None:
    backbone = _Backbone().eval()
    backbone.load_state_dict(file["model"])  # strict
    images = torch.rand(2, 3, 64, 80, generator=torch.Generator().manual_seed(6))
    with torch.no_grad():
        torch.testing.assert_close(backbone(images), resnet_features(f_intra, images), atol=1e-5, rtol=0)


def test_its_checkpointer_finds_each_weight_under_the_prefix_of_a_detector(file: dict) -> None:
    # detectron2/checkpoint/c2_model_loading.py: a model's weight takes the longest name that it ends in.
    for name in _Backbone().state_dict():
        full = f"backbone.bottom_up.{name}"
        ends = [stored for stored in file["model"] if full == stored or full.endswith(f".{stored}")]
        assert max(ends, key=len) == name


def test_the_file_is_marked_as_its_checkpointer_expects(file: dict) -> None:
    assert (file["__author__"], file["matching_heuristics"]) == ("vissl_jointssl", True)
    # With the _metadata of a state_dict() its BatchNorm would take running_var for one of an old format.
    assert type(file["model"]) is dict


def test_the_printed_yaml_is_its_configuration(account: ExportAccount) -> None:
    config = yaml.safe_load(account.load_with)
    assert config["MODEL"]["WEIGHTS"] == "detectron2.pth"
    assert config["MODEL"]["PIXEL_MEAN"] == pytest.approx([0.449 * 255] * 3)
    assert config["MODEL"]["PIXEL_STD"] == pytest.approx([0.226 * 255] * 3)
    assert config["MODEL"]["RESNETS"] == {"DEPTH": 50, "STRIDE_IN_1X1": False}
    assert config["INPUT"] == {"FORMAT": "RGB"}
    assert account.load_with.splitlines()[0] in account.summary()


def test_an_unknown_normalisation_is_said_and_not_made_up() -> None:
    text = TARGET.load_with("w.pth", Normalisation(None, None, "unknown"))
    assert "what training subtracted is unknown" in text
    assert "PIXEL_MEAN" not in yaml.safe_load(text)["MODEL"]


def test_the_counters_are_listed_as_dropped(account: ExportAccount) -> None:
    counters = [name for name in account.dropped if name.endswith("num_batches_tracked")]
    assert len(counters) == 53
    assert len(account.dropped) == 53 + 3
