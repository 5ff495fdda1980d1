"""A ResNet-50 of any library becomes the start of stage 1, or a fault that says why not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch
import torchvision
from torch import Tensor

from vissl_jointssl import cli
from vissl_jointssl.checkpoints import CheckpointError, StageRecord, hand_over, read_checkpoint
from vissl_jointssl.checkpoints.importing import import_resnet50, write_imported

TRUNK = "_feature_blocks."


@pytest.fixture(scope="module")
def resnet() -> torch.nn.Module:
    """torchvision's ResNet-50 with BatchNorm statistics that are not the initial ones."""
    torch.manual_seed(0)
    model = torchvision.models.resnet50(weights=None)
    for name, buffer in model.named_buffers():
        if name.endswith("running_var"):
            buffer.uniform_(0.5, 2)
        elif name.endswith("running_mean"):
            buffer.normal_(std=0.1)
    return model.eval()


@pytest.fixture(scope="module")
def weights(resnet: torch.nn.Module) -> dict[str, Tensor]:
    return dict(resnet.state_dict())


def _prefixed(weights: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {prefix + name: value for name, value in weights.items()}


LAYOUTS: dict[str, Callable[[dict[str, Tensor]], Any]] = {
    "torchvision": lambda weights: weights,
    "data parallel": lambda weights: _prefixed(weights, "module."),
    "state_dict": lambda weights: {"state_dict": weights, "epoch": 90, "optimizer": {"state": {0: torch.ones(2)}}},
    "moco": lambda weights: {
        "state_dict": _prefixed(weights, "module.encoder_q.")
        | _prefixed({name: torch.zeros_like(value) for name, value in weights.items()}, "module.encoder_k.")
    },
    "vissl": lambda weights: {
        "classy_state_dict": {
            "base_model": {"model": {"trunk": _prefixed(weights, TRUNK), "heads": {"0.weight": torch.ones(2)}}}
        }
    },
    "lightning": lambda weights: {"state_dict": _prefixed(weights, "model.backbone."), "callbacks": {}},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_trunk(layout: str, weights: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save(LAYOUTS[layout](weights), tmp_path / "file.pth")
    state, account = import_resnet50(tmp_path / "file.pth")
    wanted = {TRUNK + name: value for name, value in weights.items() if not name.startswith("fc.")}
    assert state.keys() == wanted.keys()
    assert all(torch.equal(state[name], value) for name, value in wanted.items())
    assert len(account.matched) == 318
    assert [name.endswith(("fc.weight", "fc.bias")) for name in account.dropped].count(True) >= 2


def test_safetensors_are_read(weights: dict[str, Tensor], tmp_path: Path) -> None:
    safetensors.torch.save_file(weights, tmp_path / "model.safetensors")
    state, _ = import_resnet50(tmp_path / "model.safetensors")
    assert torch.equal(state[f"{TRUNK}conv1.weight"], weights["conv1.weight"])


def test_old_files_of_torchvision_without_zip_archive_and_counters_are_read(
    weights: dict[str, Tensor], tmp_path: Path
) -> None:
    old = {name: value for name, value in weights.items() if not name.endswith("num_batches_tracked")}
    torch.save(old, tmp_path / "resnet50-19c8e357.pth", _use_new_zipfile_serialization=False)
    state, account = import_resnet50(tmp_path / "resnet50-19c8e357.pth")
    assert len(state) == 318
    assert len(account.counters) == 53
    assert state[f"{TRUNK}bn1.num_batches_tracked"] == 0


def test_timms_resnet50_gives_the_features_of_timm(tmp_path: Path) -> None:
    torch.manual_seed(1)
    theirs = timm.create_model("resnet50", pretrained=False).eval()
    torch.save(theirs.state_dict(), tmp_path / "timm.pth")
    state, _ = import_resnet50(tmp_path / "timm.pth")
    ours = torchvision.models.resnet50(weights=None).eval()
    ours.fc = torch.nn.Identity()
    ours.load_state_dict({name.removeprefix(TRUNK): value for name, value in state.items()})
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(
            ours(images), theirs.forward_head(theirs.forward_features(images), pre_logits=True), atol=1e-6, rtol=0
        )


def test_half_precision_becomes_single(weights: dict[str, Tensor], tmp_path: Path) -> None:
    half = {name: value.half() if value.is_floating_point() else value for name, value in weights.items()}
    torch.save(half, tmp_path / "half.pth")
    state, _ = import_resnet50(tmp_path / "half.pth")
    assert state[f"{TRUNK}conv1.weight"].dtype == torch.float32
    assert state[f"{TRUNK}bn1.num_batches_tracked"].dtype == torch.int64


def test_what_is_written_is_a_parent_for_stages_2_and_3_when_allowed(
    weights: dict[str, Tensor], tmp_path: Path
) -> None:
    torch.save(weights, tmp_path / "file.pth")
    account = write_imported(tmp_path / "file.pth", tmp_path / "stage0.torch")
    assert account.out == tmp_path / "stage0.torch"
    parent = read_checkpoint(tmp_path / "stage0.torch")
    assert parent.record is None
    assert len(parent.trunk) == 318
    child = StageRecord(stage=2, flavour="swav", slice_embedding_width=2048, embedding_width=640)
    hand_over(parent, child, list(parent.trunk), allow_unrecorded=True)
    with pytest.raises(CheckpointError, match="no stage record"):
        hand_over(parent, child, list(parent.trunk))


def test_a_file_with_two_networks_asks_which(weights: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "file.pth"
    zeros = {name: torch.zeros_like(value) for name, value in weights.items()}
    torch.save({"student": weights, "teacher": zeros}, path)
    with pytest.raises(CheckpointError, match=r"holds 2 ResNet-50; choose one with --prefix from \['student\.', 'tea"):
        import_resnet50(path)
    state, account = import_resnet50(path, prefix="teacher.")
    assert not state[f"{TRUNK}conv1.weight"].any()
    assert account.prefix == "teacher."
    with pytest.raises(CheckpointError, match=r"no ResNet-50 lies under the prefix 'head\.'; found under \['student"):
        import_resnet50(path, prefix="head.")


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (
            "resnet18",
            r"holds no ResNet-50 \(conv1\.weight and layer4\.2\.conv3\.weight under one prefix\): found conv1",
        ),
        ("resnet101", r"306 weights have no place in a ResNet-50: layer3\.6\.conv1\.weight"),
        (
            "wide_resnet50_2",
            r"weights have another shape: layer1\.0\.conv1\.weight is \(128, 64, 1, 1\), expected \(64",
        ),
    ],
)
def test_another_network_is_refused(network: str, message: str, tmp_path: Path) -> None:
    with torch.device("meta"):
        shapes = getattr(torchvision.models, network)(weights=None).state_dict()
    torch.save({name: torch.empty(value.shape).zero_() for name, value in shapes.items()}, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=message) as caught:
        import_resnet50(tmp_path / "x.pth")
    assert str(tmp_path / "x.pth") in str(caught.value)


def test_a_network_with_holes_or_nan_is_refused(weights: dict[str, Tensor], tmp_path: Path) -> None:
    broken = {name: value for name, value in weights.items() if not name.startswith("layer2.1.")}
    broken["bn1.bias"] = torch.full((64,), float("nan"))
    torch.save(broken, tmp_path / "x.pth")
    with pytest.raises(
        CheckpointError, match=r"15 weights of a ResNet-50 are absent: layer2\.1\.conv1\.weight"
    ) as caught:
        import_resnet50(tmp_path / "x.pth")
    assert "1 weights are NaN or infinite: bn1.bias" in str(caught.value)


class _Malicious:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("was_here"),))


def test_code_in_a_file_is_not_run(weights: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": weights, "args": _Malicious()}, "x.pth")
    with pytest.raises(CheckpointError, match=r"refused, because it is damaged or holds more than tensors"):
        import_resnet50("x.pth")
    assert not Path("was_here").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("absent.pth", None, "no such file"),
        ("weights.npz", b"x", r"weights files end in one of \.pth, \.pt"),
        ("cut.pth", b"PK\x03\x04 and no end", "cannot be read as PyTorch weights"),
        ("empty.pth", b"", "cannot be read as PyTorch weights"),
        ("cut.safetensors", b"\xff\xff", "cannot be read as safetensors"),
    ],
)
def test_a_file_that_cannot_be_read_says_why(name: str, content: bytes | None, message: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        import_resnet50(tmp_path / name)


def test_a_file_without_tensors_says_so(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match="found no tensor at all"):
        import_resnet50(tmp_path / "x.pth")


def test_the_verb_writes_the_checkpoint_and_prints_an_account(
    weights: dict[str, Tensor], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source, out = tmp_path / "resnet50.pth", tmp_path / "stage0.torch"
    torch.save(weights, source)
    caplog.set_level("INFO")
    assert cli.main(["import", str(source), "--out", str(out)]) == 0
    assert "matched  318 weights and buffers" in caplog.text
    assert "dropped  2 (fc.weight, fc.bias)" in caplog.text
    assert len(read_checkpoint(out).trunk) == 318


def test_a_file_is_not_written_over_itself(
    weights: dict[str, Tensor], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "resnet50.torch"
    torch.save(weights, source)
    assert cli.main(["import", str(source), "--out", str(source)]) == 1
    assert "would overwrite the file that is imported" in capsys.readouterr().err


def test_a_foreign_file_given_to_a_stage_is_answered_with_the_verb(weights: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save(weights, tmp_path / "resnet50.pth")
    with pytest.raises(CheckpointError, match=r"becomes one by `jointssl import FILE --out stage0\.torch`"):
        read_checkpoint(tmp_path / "resnet50.pth")
    safetensors.torch.save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"becomes one by `jointssl import FILE --out stage0\.torch`"):
        read_checkpoint(tmp_path / "model.safetensors")
