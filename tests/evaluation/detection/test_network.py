from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torchvision
from torch import nn
from torchvision.models.feature_extraction import create_feature_extractor

from vissl_jointssl.checkpoints import CheckpointError
from vissl_jointssl.evaluation.detection.network import Detector, build_detector
from vissl_jointssl.evaluation.initialisation import Initialisation


def build(start: Initialisation, layers: int = 3, batchnorm: str = "frozen") -> Detector:
    return build_detector(start, 2, (64, 64), (8, 16, 32, 64, 128), layers, batchnorm, 20, 96)


def test_the_box_head_learns_from_as_many_proposals_as_asked(pretrained: Initialisation) -> None:
    assert build(pretrained).network.roi_heads.fg_bg_sampler.batch_size_per_image == 96


def test_the_backbone_gives_the_features_of_the_given_weights(pretrained: Initialisation) -> None:
    reference = torchvision.models.resnet50(weights=None)
    assert pretrained.slice_encoder is not None
    loaded = reference.load_state_dict(pretrained.slice_encoder, strict=False)
    assert loaded.missing_keys == ["fc.weight", "fc.bias"]
    names = {f"layer{n}": str(n - 1) for n in range(1, 5)}
    extract = create_feature_extractor(reference.eval(), names)
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        found = build(pretrained).eval().network.backbone.body(images)
        expected = extract(images)
    assert list(found) == ["0", "1", "2", "3"]
    for level, values in expected.items():
        torch.testing.assert_close(found[level], values, atol=1e-5, rtol=0)


def test_an_image_is_normalised_as_in_pretraining(pretrained: Initialisation) -> None:
    transform = build(pretrained).network.transform
    images, _ = transform([torch.full((3, 64, 64), 0.449)])
    assert images.tensors.abs().max() < 1e-6
    images, _ = transform([torch.full((3, 64, 64), 0.449 + 0.226)])
    torch.testing.assert_close(images.tensors, torch.ones(1, 3, 64, 64), atol=1e-5, rtol=0)


def statistics(detector: Detector) -> dict[str, torch.Tensor]:
    body = detector.network.backbone.body
    return {name: value.clone() for name, value in body.state_dict().items() if "running_" in name}


def one_step(detector: Detector) -> None:
    targets = [{"boxes": torch.tensor([[8.0, 8.0, 40.0, 40.0]]), "labels": torch.tensor([1])}] * 2
    losses = detector([torch.rand(3, 64, 64), torch.rand(3, 64, 64)], targets)
    assert isinstance(losses, dict)
    torch.stack(list(losses.values())).sum().backward()


def test_frozen_statistics_stay_and_only_the_chosen_layers_learn(pretrained: Initialisation) -> None:
    detector = build(pretrained).train()
    before = statistics(detector)
    one_step(detector)
    assert all(value.equal(before[name]) for name, value in statistics(detector).items())
    for name, parameter in detector.network.backbone.body.named_parameters():
        assert (parameter.grad is None) == name.startswith(("conv1", "bn1", "layer1"))


def test_statistics_of_the_batch_move_but_not_those_of_layers_that_do_not_learn(pretrained: Initialisation) -> None:
    detector = build(pretrained, batchnorm="training").train()
    before = statistics(detector)
    one_step(detector)
    changed = {name.split(".")[0] for name, value in statistics(detector).items() if not value.equal(before[name])}
    assert changed == {"layer2", "layer3", "layer4"}


def test_a_random_start_trains_every_layer_and_its_statistics() -> None:
    detector = build(Initialisation("scratch")).train()
    body = detector.network.backbone.body
    assert all(parameter.requires_grad for parameter in body.parameters())
    assert all(module.training for module in body.modules() if isinstance(module, nn.BatchNorm2d))


def test_weights_that_do_not_cover_the_backbone_are_refused(pretrained: Initialisation) -> None:
    assert pretrained.slice_encoder is not None
    weights = dict(pretrained.slice_encoder)
    weights["layer9.weight"] = weights.pop("layer4.2.conv3.weight")
    weights["conv1.weight"] = weights["conv1.weight"][:, :1]
    with pytest.raises(CheckpointError, match=r"weights pretrained \(weights.pth\)") as error:
        build(replace(pretrained, slice_encoder=weights))
    for fault in ("lacks layer4.2.conv3.weight", "has layer9.weight, which", r"conv1.weight of shape (64, 1, 7, 7)"):
        assert fault in str(error.value)
