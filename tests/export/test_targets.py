"""What holds for every 2D target: the file is loaded by the library's own loader and gives the trunk's features."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor

from vissl_jointssl import load_pretrained
from vissl_jointssl.checkpoints import sha256
from vissl_jointssl.export import mmdetection, monai
from vissl_jointssl.export.account import ExportAccount, ExportError
from vissl_jointssl.export.parity import resnet_features
from vissl_jointssl.export.registry import TARGETS
from vissl_jointssl.export.source import own_copies
from vissl_jointssl.export.training_config import GREY_DEVIATION, GREY_MEAN, Normalisation
from vissl_jointssl.views.channels import GREY_MEAN as VIEWS_MEAN

SLICE_TARGETS = sorted(set(TARGETS) - {"volume"})
# The card's lines are run with these names; monai's package does not import its networks by itself.
LIBRARIES = {
    "torchvision": ["torchvision"],
    "timm": ["timm"],
    "segmentation_models_pytorch": ["segmentation_models_pytorch"],
    "monai": ["monai", "monai.networks.nets"],
    "safetensors": ["torchvision", "safetensors", "safetensors.torch"],
}

Exported = Callable[[str], ExportAccount]


@pytest.fixture(scope="module")
def images() -> Tensor:
    """Not the images of the export's own check; an odd size shows a wrong padding."""
    return torch.rand(2, 3, 75, 90, generator=torch.Generator().manual_seed(5))


@pytest.fixture(scope="module")
def features(f_intra: dict[str, Tensor], images: Tensor) -> Tensor:
    """Of torchvision's model with the weights put in by hand."""
    model = torchvision.models.resnet50(weights=None)
    model.fc = torch.nn.Identity()
    model.load_state_dict(f_intra)
    with torch.no_grad():
        found: Tensor = model.eval()(images)
    assert found.std() > 0.01  # features that are all alike would agree with anything
    return found


@pytest.mark.parametrize("target", sorted(LIBRARIES))
def test_the_lines_on_the_card_load_the_file_in_that_library_and_give_the_same_features(
    target: str, exported: Exported, images: Tensor, features: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = exported(target)
    monkeypatch.chdir(account.out.parent)
    names: dict[str, Any] = {"torch": torch}
    names |= {name: importlib.import_module(name) for name in LIBRARIES[target] if "." not in name}
    for name in LIBRARIES[target]:
        importlib.import_module(name)
    exec(json.loads(account.card.read_text())["load_with"], names)  # noqa: S102 - the card's lines are what is tested
    model = names["model"].eval()
    with torch.no_grad():
        if target == "segmentation_models_pytorch":
            found = model.encoder(images)[-1].mean(dim=(2, 3))
        else:
            found = model(images)
    torch.testing.assert_close(found, features, atol=1e-5, rtol=0)


@pytest.mark.parametrize("target", SLICE_TARGETS)
def test_every_weight_of_the_checkpoint_is_matched_or_dropped(
    target: str, exported: Exported, content: dict[str, Any]
) -> None:
    account = exported(target)
    model = content["classy_state_dict"]["base_model"]["model"]
    every = {*model["trunk"], *(f"heads.{name}" for name in model["heads"])}
    assert set(account.renamed) | set(account.dropped) == every
    assert len(account.renamed) + len(account.dropped) == len(every)
    assert sorted(account.renamed.values()) == list(account.matched)
    without_counters = 318 - 53  # 53 BatchNorms
    assert len(account.matched) == (without_counters if target == "detectron2" else 318)
    assert account.missing == (("fc.bias", "fc.weight") if target in ("torchvision", "safetensors") else ())
    assert account.max_abs_difference <= 1e-5


def test_a_weight_that_is_a_view_leaves_its_storage_behind() -> None:
    (copied,) = own_copies({"a": torch.zeros(1000)[:2]}).values()
    assert copied.untyped_storage().nbytes() == 2 * 4


@pytest.mark.parametrize("target", SLICE_TARGETS)
def test_the_one_line_of_ours_reads_the_file_too(
    target: str, exported: Exported, images: Tensor, features: Tensor
) -> None:
    model = load_pretrained(exported(target).out)
    with torch.no_grad():
        torch.testing.assert_close(model(images), features, atol=1e-5, rtol=0)
    assert model.card["target"] == target


@pytest.mark.parametrize("target", SLICE_TARGETS)
def test_the_card_is_of_the_file_and_lists_what_was_dropped(target: str, exported: Exported) -> None:
    account = exported(target)
    card = json.loads(account.card.read_text())
    assert (card["target"], card["sha256"], card["stage"], card["flavour"]) == (target, sha256(account.out), 3, "swav")
    assert (card["input"]["mean"], card["input"]["std"]) == ([0.449] * 3, [0.226] * 3)
    assert card["weights"]["dropped"] == list(account.dropped)
    assert "heads.0.prototypes0.weight" in card["weights"]["dropped"]
    assert card["parity"]["max_abs_difference"] == account.max_abs_difference
    assert all(line in account.summary() for line in card["load_with"].splitlines())


def test_a_safetensors_file_carries_its_card(exported: Exported, f_intra: dict[str, Tensor]) -> None:
    from safetensors import safe_open

    account = exported("safetensors")
    with safe_open(account.out, "pt") as file:
        inside = json.loads(file.metadata()["card"])
        assert set(file.keys()) == set(f_intra)
        assert torch.equal(file.get_tensor("layer3.1.bn2.running_var"), f_intra["layer3.1.bn2.running_var"])
    beside = json.loads(account.card.read_text())
    assert inside == {**beside, "sha256": None}


def test_mmdetection_gets_a_bare_state_dict_with_its_own_names(exported: Exported, f_intra: dict[str, Tensor]) -> None:
    account = exported("mmdetection")
    weights = torch.load(account.out, weights_only=True)
    assert set(weights) == set(f_intra)  # mmdet/models/backbones/resnet.py: as torchvision's, without a prefix
    names: dict[str, Any] = {}
    exec(account.load_with, names)  # noqa: S102 - lines of a configuration, which is Python
    assert names["model"]["backbone"] == {
        "depth": 50,
        "style": "pytorch",
        "init_cfg": {"type": "Pretrained", "checkpoint": "mmdetection.pth"},
    }
    assert names["model"]["data_preprocessor"]["mean"] == pytest.approx([0.449 * 255] * 3)
    assert names["model"]["data_preprocessor"]["std"] == pytest.approx([0.226 * 255] * 3)
    unknown = mmdetection.TARGET.load_with("w.pth", Normalisation(None, None, "unknown"))
    assert "what training subtracted is unknown" in unknown
    exec(unknown, names)  # noqa: S102
    assert "data_preprocessor" not in names["model"]


@pytest.mark.parametrize("target", ["timm", "segmentation_models_pytorch", "monai", "safetensors"])
def test_a_library_that_is_not_installed_is_named_with_its_package(
    target: str, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.import_module

    def without(name: str, package: str | None = None) -> Any:
        if name.split(".")[0] == target:
            raise ModuleNotFoundError(f"No module named {target!r}", name=target)
        return real(name, package)

    monkeypatch.setattr(importlib, "import_module", without)
    out = tmp_path / f"w{'.safetensors' if target == 'safetensors' else '.pth'}"
    with pytest.raises(ExportError, match=rf"pip install {target.replace('_', '-')}$"):
        TARGETS[target](checkpoint, out)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("target", "name", "message"),
    [
        ("safetensors", "w.pth", r"files end in \.safetensors, .* write w\.safetensors"),
        ("detectron2", "w.pkl", r"files end in \.pth or \.pt or \.torch, .* write w\.pth"),
        ("volume", "w", r"write w\.pth"),
    ],
)
def test_a_suffix_that_readers_would_take_for_another_format_is_refused(
    target: str, name: str, message: str, joint_checkpoint: Path, tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match=message):
        TARGETS[target](joint_checkpoint, tmp_path / name)


def test_a_run_s_folder_stands_for_its_newest_checkpoint(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with pytest.raises(ExportError, match="run: holds no checkpoint"):
        TARGETS["torchvision"](tmp_path / "run", tmp_path / "w.pth")
    (tmp_path / "run" / "model_final_checkpoint_phase99.torch").hardlink_to(checkpoint)
    account = TARGETS["torchvision"](tmp_path / "run", tmp_path / "w.pth")
    assert json.loads(account.card.read_text())["source"]["sha256"] == sha256(checkpoint)


def test_a_model_that_is_not_the_one_trained_is_not_written_for(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # MONAI's own default: the names and shapes are the same, only the forward pass shows it.
    monkeypatch.setitem(monai.ARGUMENTS, "conv1_t_stride", 1)
    with pytest.raises(ExportError, match=r"differ by .*nothing was written"):
        TARGETS["monai"](checkpoint, tmp_path / "w.pth")
    monkeypatch.setitem(monai.ARGUMENTS, "bias_downsample", True)
    with pytest.raises(ExportError, match=r"misses .*layer1\.0\.downsample\.0\.bias.* report this with your version"):
        TARGETS["monai"](checkpoint, tmp_path / "w.pth")
    assert list(tmp_path.iterdir()) == []


def test_the_grey_normalisation_is_that_of_the_views() -> None:
    importlib.import_module("vissl_jointssl.plugin")
    deviation = importlib.import_module("vissl_jointssl.plugin.planned_views").GREY_DEVIATION
    assert (set(GREY_MEAN), set(GREY_DEVIATION)) == ({VIEWS_MEAN}, {deviation})


def test_walk_and_fixture_agree(f_intra: dict[str, Tensor], images: Tensor, features: Tensor) -> None:
    torch.testing.assert_close(resnet_features(f_intra, images), features, atol=1e-5, rtol=0)
