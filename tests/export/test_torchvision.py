from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor

import vissl_jointssl
from vissl_jointssl.checkpoints import sha256
from vissl_jointssl.export import slice_encoder
from vissl_jointssl.export.account import ExportAccount, ExportError
from vissl_jointssl.export.torchvision import export_torchvision


@pytest.fixture(scope="module")
def account(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> ExportAccount:
    return export_torchvision(checkpoint, tmp_path_factory.mktemp("out") / "f_intra.pth", intensity={"window": [0, 1]})


def test_torchvision_loads_the_weights_strictly_but_for_the_classifier(
    account: ExportAccount, f_intra: dict[str, Tensor]
) -> None:
    model = torchvision.models.resnet50(weights=None)
    model.fc = torch.nn.Identity()
    model.load_state_dict(torch.load(account.out, weights_only=True))
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, f_intra[name]), name


def test_the_account_holds_every_weight_once(account: ExportAccount, content: dict[str, Any]) -> None:
    trunk = content["classy_state_dict"]["base_model"]["model"]["trunk"]
    assert len(account.matched) == 318  # 53 convolutions + 53 BatchNorms of 5 tensors each
    assert account.renamed["_feature_blocks.layer4.2.bn3.running_var"] == "layer4.2.bn3.running_var"
    assert account.dropped == ("slice_projection.weight", "mask_token", "heads.0.prototypes0.weight")
    assert account.renamed.keys() | set(account.dropped[:2]) == trunk.keys()
    assert account.missing == ("fc.bias", "fc.weight")
    assert account.max_abs_difference <= 1e-5


def test_the_card_says_what_the_weights_are_and_where_they_come_from(account: ExportAccount, checkpoint: Path) -> None:
    card = json.loads(account.card.read_text())
    assert account.card.name == "f_intra.pth.json"
    assert (card["stage"], card["flavour"], card["sha256"]) == (3, "swav", sha256(account.out))
    assert card["source"]["sha256"] == sha256(checkpoint)
    assert card["source"]["manifest_fingerprint"] == "cd" * 32
    assert card["exported_with"]["vissl_jointssl"] == vissl_jointssl.__version__
    assert card["input"]["axis_order"].startswith("(B, C, H, W)")
    assert (card["input"]["channels"], card["input"]["intensity"]) == (3, {"window": [0, 1]})
    assert (card["input"]["mean"], card["input"]["std"]) == ([0.449] * 3, [0.226] * 3)
    assert card["input"]["normalisation_known_from"].startswith("the default of our stages")
    assert card["weights"]["dropped"] == ["slice_projection.weight", "mask_token", "heads.0.prototypes0.weight"]
    assert str(checkpoint.parent) not in account.card.read_text()


def test_the_line_on_the_card_loads_the_weights(account: ExportAccount, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(account.out.parent)
    names: dict[str, Any] = {"torch": torch, "torchvision": torchvision}
    exec(json.loads(account.card.read_text())["load_with"], names)  # noqa: S102 - the card's line is what is tested
    assert torch.equal(names["model"].conv1.weight, torch.load(account.out, weights_only=True)["conv1.weight"])


def _rewritten(content: dict[str, Any], path: Path, trunk: dict[str, Tensor]) -> Path:
    changed = copy.copy(content)
    changed["classy_state_dict"] = {"base_model": {"model": {"trunk": trunk, "heads": {}}}}
    torch.save(changed, path)
    return path


@pytest.fixture
def trunk(content: dict[str, Any]) -> dict[str, Tensor]:
    return dict(content["classy_state_dict"]["base_model"]["model"]["trunk"])


def test_mean_and_std_come_from_the_configuration_beside_the_checkpoint(
    content: dict[str, Any], trunk: dict[str, Tensor], tmp_path: Path
) -> None:
    path = _rewritten(content, tmp_path / "model_phase1.torch", trunk)
    (tmp_path / "train_config.yaml").write_text(
        "config:\n  MODEL: {TRUNK: {RESNETS: {DEPTH: 50, LAYER4_STRIDE: 2}}}\n"
        "  DATA: {TRAIN: {TRANSFORMS: [{name: ToTensor}, {name: Normalize, mean: [0.4], std: [0.2]}]}}\n"
    )
    card = json.loads(export_torchvision(path, tmp_path / "w.pth").card.read_text())
    assert (card["input"]["mean"], card["input"]["std"]) == ([0.4], [0.2])
    assert card["input"]["training_transforms"] == ["ToTensor", "Normalize"]
    assert (card["stage"], card["source"]["final"]) == (None, False)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("DEPTH: 101", "says a ResNet-101; this target takes a ResNet-50"),
        ("LAYER4_STRIDE: 1", "trained with stride 1 in its last stage"),
    ],
)
def test_a_network_that_only_its_configuration_betrays_is_refused(
    checkpoint: Path, tmp_path: Path, setting: str, message: str
) -> None:
    (tmp_path / "model_phase1.torch").hardlink_to(checkpoint)
    (tmp_path / "train_config.yaml").write_text(f"config: {{MODEL: {{TRUNK: {{RESNETS: {{{setting}}}}}}}}}\n")
    with pytest.raises(ExportError, match=message):
        export_torchvision(tmp_path / "model_phase1.torch", tmp_path / "w.pth")
    assert not (tmp_path / "w.pth").exists()


def test_a_broken_configuration_is_named(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "model_phase1.torch").hardlink_to(checkpoint)
    (tmp_path / "train_config.yaml").write_text("config: [1, 2\n")
    with pytest.raises(ExportError, match=r"train_config\.yaml: cannot be read"):
        export_torchvision(tmp_path / "model_phase1.torch", tmp_path / "w.pth")


def test_every_fault_of_the_weights_is_named_at_once(
    content: dict[str, Any], trunk: dict[str, Tensor], tmp_path: Path
) -> None:
    del trunk["_feature_blocks.layer2.0.conv1.weight"]
    trunk["_feature_blocks.layer3.6.conv1.weight"] = torch.ones(1)  # a deeper network has it
    trunk["_feature_blocks.conv1.weight"] = torch.ones(64, 1, 7, 7)
    trunk["_feature_blocks.bn1.bias"] = torch.full((64,), float("nan"))
    with pytest.raises(ExportError) as caught:
        export_torchvision(_rewritten(content, tmp_path / "broken.torch", trunk), tmp_path / "w.pth")
    message = str(caught.value)
    assert "broken.torch" in message
    assert "1 weights of a ResNet-50 are absent: layer2.0.conv1.weight" in message
    assert "1 weights have no place in a ResNet-50: layer3.6.conv1.weight" in message
    assert "conv1.weight is (64, 1, 7, 7) and should be (64, 3, 7, 7)" in message
    assert "1 weights are NaN or infinite: bn1.bias" in message
    assert not (tmp_path / "w.pth").exists()


@pytest.mark.parametrize("wrong", [1e-3, float("nan")])
def test_features_that_disagree_stop_the_export(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: float
) -> None:
    monkeypatch.setattr(slice_encoder, "resnet_features", lambda weights, images: torch.full((2, 2048), wrong))
    with pytest.raises(ExportError, match=r"differ by .* from the checkpoint's own"):
        export_torchvision(checkpoint, tmp_path / "w.pth")
    assert list(tmp_path.iterdir()) == []


def test_weights_are_not_written_where_vissl_would_trip_over_them(checkpoint: Path) -> None:
    with pytest.raises(ExportError, match=r"would no longer resume this run; .* such as f_intra\.pth"):
        export_torchvision(checkpoint, checkpoint.with_name("f_intra.torch"))
    with pytest.raises(ExportError, match="VISSL takes every"):
        export_torchvision(checkpoint, checkpoint)
