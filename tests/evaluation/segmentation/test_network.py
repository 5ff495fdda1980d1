from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torchvision.models import resnet50
from torchvision.models.feature_extraction import create_feature_extractor

from vissl_jointssl.evaluation.initialisation import Initialisation
from vissl_jointssl.evaluation.segmentation.network import CoverageError, build_unet


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    torch.manual_seed(0)
    network = resnet50(weights=None)
    network.train()
    with torch.no_grad():
        network(torch.randn(4, 3, 32, 32))  # statistics of BatchNorm that are not those of a new network
    return {name: value for name, value in network.state_dict().items() if not name.startswith("fc.")}


def test_the_encoder_computes_what_torchvisions_resnet50_computes(weights: dict[str, Tensor]) -> None:
    network = build_unet(2, Initialisation("ours", slice_encoder=weights)).eval()
    theirs = resnet50(weights=None)
    theirs.load_state_dict(weights, strict=False)
    nodes = ("relu", "layer1", "layer2", "layer3", "layer4")
    extractor = create_feature_extractor(theirs.eval(), list(nodes))
    pictures = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found = network.get_submodule("encoder")(pictures)[1:]
        expected = extractor(pictures)
        logits = network(pictures)
    for mine, name in zip(found, nodes, strict=True):
        torch.testing.assert_close(mine, expected[name], atol=1e-5, rtol=1e-5)
    assert logits.shape == (2, 2, 64, 64)


def test_starts_differ_in_the_encoder_alone(weights: dict[str, Tensor]) -> None:
    torch.manual_seed(3)
    scratch = build_unet(1, Initialisation("scratch")).state_dict()
    torch.manual_seed(3)
    started = build_unet(1, Initialisation("ours", slice_encoder=weights)).state_dict()
    assert all(torch.equal(started[f"encoder.{name}"], value) for name, value in weights.items())
    assert {n for n in scratch if n.startswith("encoder.")} == {f"encoder.{name}" for name in weights}
    assert not torch.equal(scratch["encoder.conv1.weight"], started["encoder.conv1.weight"])
    for name, value in scratch.items():
        if not name.startswith("encoder."):
            assert torch.equal(started[name], value)


def test_weights_that_leave_a_part_of_the_encoder_random_are_refused(weights: dict[str, Tensor]) -> None:
    for change, message in (
        ({"layer4.2.bn3.bias": None}, r"half: .* 1 of 318 weights are at fault: layer4.2.bn3.bias is absent"),
        ({"layer5.weight": torch.zeros(1)}, r"layer5.weight has no place"),
        ({"conv1.weight": torch.zeros(64, 1, 7, 7)}, r"conv1.weight is \(64, 1, 7, 7\), expected \(64, 3, 7, 7\)"),
    ):
        faulty = {name: value for name, value in {**weights, **change}.items() if value is not None}
        with pytest.raises(CoverageError, match=message):
            build_unet(1, Initialisation("half", slice_encoder=faulty))
