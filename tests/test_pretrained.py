"""`load_pretrained`: each kind of file that it reads, and each that it refuses."""

from __future__ import annotations

import json
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

from vissl_jointssl import load_pretrained
from vissl_jointssl.checkpoints import CheckpointError, StageRecord
from vissl_jointssl.export.card import card_path
from vissl_jointssl.export.registry import TARGETS
from vissl_jointssl.models.joint_encoder import JointEncoder

F_INTER = {"downsample": [2, 1], "heads": 2, "head_width": 8, "offset_groups": 2, "feed_forward_width": 24}
LEVELS = ("res2", "res5")


@pytest.fixture(scope="module")
def encoder() -> JointEncoder:
    """f_intra with BatchNorms that have seen data, and a small f_inter."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = JointEncoder(LEVELS, "slice", 16, F_INTER).eval()
        for name, buffer in module.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_(std=0.1)
            elif name.endswith("running_var"):
                buffer.uniform_(0.5, 2)
    return module


@pytest.fixture(scope="module")
def resnet(encoder: JointEncoder) -> nn.Module:
    model = torchvision.models.resnet50(weights=None)
    model.fc = nn.Identity()
    model.load_state_dict(encoder.slice_encoder.state_dict())
    return model.eval()


@pytest.fixture(scope="module")
def write_checkpoint(encoder: JointEncoder) -> Callable[..., Path]:
    def write(path: Path, stage: int | None = 3, without: tuple[str, ...] = (), **more: Tensor) -> Path:
        trunk = {name: weight for name, weight in {**encoder.state_dict(), **more}.items() if name not in without}
        sizes = {} if stage == 1 else {"levels": LEVELS, "embedding_width": 16, "volume_encoder": F_INTER}
        record = None if stage is None else StageRecord(stage, "swav", **sizes).to_dict()
        hooks = {} if stage is None else {"StagedTrainingHook": {"record": record}}
        model = {"model": {"trunk": trunk, "heads": {"0.prototypes0.weight": torch.ones(2, 2)}}}
        torch.save({"type": "consolidated", "classy_state_dict": {"base_model": model, "hooks": hooks}}, path)
        return path

    return write


@pytest.fixture(scope="module")
def checkpoint(write_checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("run") / "model_final_checkpoint_phase1.torch")


@pytest.fixture(scope="module")
def exported(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One file of each format; tests/export reads back those of every target."""
    folder = tmp_path_factory.mktemp("exported")
    names = {"torchvision": "w.pth", "detectron2": "d.pth", "safetensors": "w.safetensors", "volume": "v.pth"}
    return {target: TARGETS[target](checkpoint, folder / name).out for target, name in names.items()}


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.rand(2, 3, 48, 40, generator=torch.Generator().manual_seed(2))


@pytest.fixture(scope="module")
def scans() -> Tensor:
    return torch.rand(2, 4, 1, 32, 32, generator=torch.Generator().manual_seed(3))


def _equal(one: nn.Module, other: nn.Module, batch: Tensor) -> None:
    with torch.no_grad():
        torch.testing.assert_close(one(batch), other(batch), atol=1e-5, rtol=0)


# --- what it reads


@pytest.mark.parametrize("target", ["torchvision", "detectron2", "safetensors"])
def test_a_2d_export_comes_back_as_the_slice_model(
    target: str, exported: dict[str, Path], resnet: nn.Module, images: Tensor
) -> None:
    model = load_pretrained(exported[target])
    assert not model.training
    assert (model.card["target"], model.card["stage"]) == (target, 3)
    assert (model.account.missing, model.account.unfit, model.account.dropped) == ((), (), ())
    _equal(model, resnet, images)
    with pytest.raises(CheckpointError, match=r"holds no f_inter .* or ask for model='slice'"):
        load_pretrained(exported[target], model="volume")


def test_the_volume_export_comes_back_as_the_volume_model_or_as_its_slice_model(
    exported: dict[str, Path], encoder: JointEncoder, resnet: nn.Module, scans: Tensor, images: Tensor
) -> None:
    model = load_pretrained(exported["volume"])
    assert (type(model), model.training, model.card["target"]) == (JointEncoder, False, "volume")
    _equal(model, encoder, scans)
    slices = load_pretrained(exported["volume"], model="slice")
    _equal(slices, resnet, images)
    assert "state.slice_projection.weight" in slices.account.dropped


def test_a_training_checkpoint_or_its_folder_gives_either_model(
    checkpoint: Path, encoder: JointEncoder, resnet: nn.Module, scans: Tensor, images: Tensor
) -> None:
    for path in (checkpoint, checkpoint.parent):
        model = load_pretrained(path)
        _equal(model, encoder, scans)
    assert model.card is None
    assert model.account.dropped == ("heads.0.prototypes0.weight",)
    _equal(load_pretrained(checkpoint, model="slice"), resnet, images)


@pytest.mark.parametrize("stage", [1, None])
def test_a_checkpoint_without_f_inter_gives_the_slice_model(
    stage: int | None, write_checkpoint: Callable[..., Path], resnet: nn.Module, images: Tensor, tmp_path: Path
) -> None:
    path = write_checkpoint(tmp_path / "m.torch", stage)
    _equal(load_pretrained(path), resnet, images)
    with pytest.raises(CheckpointError, match="holds no f_inter with its sizes; give a checkpoint of stage 2 or 3"):
        load_pretrained(path, model="volume")


def test_a_foreign_file_is_read_without_a_card_and_its_classifier_is_listed(
    resnet: nn.Module, images: Tensor, tmp_path: Path
) -> None:
    weights = {f"module.{name}": weight for name, weight in resnet.state_dict().items() if "num_batches" not in name}
    torch.save({"state_dict": {**weights, "module.fc.weight": torch.ones(5, 2048)}, "epoch": 3}, tmp_path / "moco.pth")
    model = load_pretrained(tmp_path / "moco.pth")
    _equal(model, resnet, images)
    assert model.card is None
    assert model.account.dropped == ("state_dict.module.fc.weight",)
    assert len(model.account.matched) == 318 - 53
    assert "dropped  1 (state_dict.module.fc.weight)" in model.account.summary()


@pytest.mark.parametrize("target", ["safetensors", "volume"])
def test_a_card_inside_the_file_is_enough(target: str, exported: dict[str, Path], tmp_path: Path) -> None:
    alone = tmp_path / exported[target].name
    alone.hardlink_to(exported[target])
    assert load_pretrained(alone).card["target"] == target


# --- what it refuses


class _Malicious:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.mark,))


@pytest.mark.parametrize("form", ["zip", "legacy", "pickle"])
def test_a_file_with_code_is_refused_and_its_code_is_not_run(form: str, tmp_path: Path) -> None:
    path, mark = tmp_path / "resnet50.pth", tmp_path / "the code ran"
    content = {"conv1.weight": torch.ones(1), "extra": _Malicious(mark)}
    if form == "pickle":
        path.write_bytes(pickle.dumps(_Malicious(mark)))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    for allow_partial in (False, True):
        with pytest.raises(CheckpointError, match="refused, because it is damaged or holds more than tensors"):
            load_pretrained(path, allow_partial=allow_partial)
    assert not mark.exists()
    torch.load(path, weights_only=False) if form != "pickle" else pickle.loads(path.read_bytes())  # noqa: S301
    assert mark.exists()  # the trap was armed


def test_poor_coverage_is_refused_with_the_account_and_taken_on_request(
    resnet: nn.Module, images: Tensor, tmp_path: Path
) -> None:
    weights = {f"encoder.{name}": weight for name, weight in resnet.state_dict().items()}
    del weights["encoder.layer2.0.conv1.weight"]
    weights["encoder.layer3.0.conv1.weight"] = torch.ones(2, 2)
    weights["encoder.layer4.0.conv1.weight"] = torch.full((512, 1024, 1, 1), torch.nan)
    torch.save({**weights, "head.weight": torch.ones(2)}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError) as caught:
        load_pretrained(tmp_path / "w.pth")
    message = str(caught.value)
    assert "slice model, 315 weights and buffers matched" in message
    assert "missing  3 (layer2.0.conv1.weight, layer3.0.conv1.weight, layer4.0.conv1.weight)" in message
    assert "unfit    2 (layer3.0.conv1.weight, layer4.0.conv1.weight)" in message
    assert "dropped  1 (head.weight)" in message
    assert "allow_partial=True" in message

    model = load_pretrained(tmp_path / "w.pth", allow_partial=True)
    assert torch.equal(model.layer1[0].conv1.weight, resnet.layer1[0].conv1.weight)
    assert model.account.missing == tuple(f"layer{n}.0.conv1.weight" for n in (2, 3, 4))
    with torch.no_grad():
        assert model(images).isfinite().all()


def test_a_deeper_network_is_not_taken_for_a_whole_one(resnet: nn.Module, tmp_path: Path) -> None:
    torch.save({**resnet.state_dict(), "layer3.6.conv1.weight": torch.ones(2)}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=r"extra    1 \(layer3\.6\.conv1\.weight\)"):
        load_pretrained(tmp_path / "w.pth")
    assert load_pretrained(tmp_path / "w.pth", allow_partial=True).account.extra == ("layer3.6.conv1.weight",)


def test_a_volume_model_with_a_weight_missing_is_refused(
    write_checkpoint: Callable[..., Path], scans: Tensor, tmp_path: Path
) -> None:
    path = write_checkpoint(tmp_path / "m.torch", without=("slice_projection.bias",), mask_token=torch.ones(16))
    with pytest.raises(CheckpointError, match=r"missing  1 \(slice_projection\.bias\)"):
        load_pretrained(path)
    model = load_pretrained(path, allow_partial=True)
    assert model.account.dropped == ("mask_token", "heads.0.prototypes0.weight")
    assert model(scans).shape == (2, 16)


def test_a_volume_model_with_more_weights_than_its_record_says_is_refused(
    write_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    more = {"volume_encoder.blocks.2.attention_norm.weight": torch.ones(16)}
    with pytest.raises(CheckpointError, match=r"extra    1 \(volume_encoder\.blocks\.2\.attention_norm\.weight\)"):
        load_pretrained(write_checkpoint(tmp_path / "m.torch", **more))


@pytest.mark.parametrize(
    ("target", "part", "name", "ours"),
    [
        ("detectron2", "model", "stem.conv1.norm.bias", "bn1.bias"),
        ("volume", "state", "slice_projection.bias", "slice_projection.bias"),
    ],
)
def test_an_export_with_a_weight_missing_is_refused_whatever_its_names(
    target: str, part: str, name: str, ours: str, exported: dict[str, Path], tmp_path: Path
) -> None:
    content = torch.load(exported[target], weights_only=True)
    del content[part][name]
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=rf"missing  1 \({ours}\)"):
        load_pretrained(tmp_path / "w.pth")
    assert load_pretrained(tmp_path / "w.pth", allow_partial=True).account.missing == (ours,)


def test_a_file_without_any_weight_of_the_model_is_refused_even_in_part(tmp_path: Path) -> None:
    torch.save({"weight": torch.ones(2)}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="holds no weight of a slice model; give another file"):
        load_pretrained(tmp_path / "w.pth", allow_partial=True)


def test_two_equal_networks_in_a_file_are_not_guessed_between(resnet: nn.Module, tmp_path: Path) -> None:
    both = {f"{who}.{name}": weight for who in ("student", "teacher") for name, weight in resnet.state_dict().items()}
    torch.save(both, tmp_path / "w.pth")
    for allow_partial in (False, True):
        with pytest.raises(CheckpointError, match=r"2 networks of equal size under \['student\.', 'teacher\.'\]"):
            load_pretrained(tmp_path / "w.pth", allow_partial=allow_partial)


def test_a_file_that_its_card_does_not_describe_is_refused(exported: dict[str, Path], tmp_path: Path) -> None:
    weights = torch.load(exported["torchvision"], weights_only=True)
    weights["bn1.bias"] += 1
    out, card = tmp_path / "w.pth", tmp_path / "w.pth.json"
    torch.save(weights, out)
    shutil.copy(card_path(exported["torchvision"]), card)
    with pytest.raises(CheckpointError, match=r"is not the file that w\.pth\.json describes \(its SHA-256 differs\)"):
        load_pretrained(out)
    card.write_text("{")
    with pytest.raises(CheckpointError, match="the card cannot be read"):
        load_pretrained(out)
    card.write_text(json.dumps({"made by": "somebody else"}))
    assert load_pretrained(out).card is None


def test_what_cannot_be_read_at_all_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"none\.pth: no such file"):
        load_pretrained(tmp_path / "none.pth")
    with pytest.raises(CheckpointError, match="holds no checkpoint; give the folder of a stage or a file"):
        load_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"model='volumes' is not known; did you mean volume\?"):
        load_pretrained(tmp_path / "none.pth", model="volumes")
    torch.save({"format": "vissl_jointssl.volume/9"}, tmp_path / "new.pth")
    with pytest.raises(CheckpointError, match=r"this version reads 'vissl_jointssl\.volume/1'"):
        load_pretrained(tmp_path / "new.pth")


def test_the_one_line_is_there_without_making_the_package_heavy() -> None:
    code = (
        "import sys, vissl_jointssl; before = 'torch' in sys.modules\n"
        "from vissl_jointssl import load_pretrained\n"
        "print(before, 'torch' in sys.modules, load_pretrained.__module__, 'vissl' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["False", "True", "vissl_jointssl.pretrained", "False"]
    import vissl_jointssl

    with pytest.raises(AttributeError, match="no attribute 'load_pretrianed'"):
        _ = vissl_jointssl.load_pretrianed
