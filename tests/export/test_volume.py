from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from vissl_jointssl.checkpoints import CheckpointError, StageRecord, read_checkpoint, sha256
from vissl_jointssl.evaluation.encoders import build_joint_encoder
from vissl_jointssl.evaluation.initialisation import read_initialisation
from vissl_jointssl.export import volume
from vissl_jointssl.export.account import ExportAccount, ExportError
from vissl_jointssl.export.volume import export_volume, parity_volumes
from vissl_jointssl.models.joint_encoder import JointEncoder, joint_encoder_of
from vissl_jointssl.models.volume_file import FORMAT, checkpoint_of_volume_file, encoder_options, volume_module


@pytest.fixture(scope="module")
def account(exported: Callable[[str], ExportAccount]) -> ExportAccount:
    return exported("volume")


@pytest.fixture(scope="module")
def file(account: ExportAccount) -> dict[str, Any]:
    content: dict[str, Any] = torch.load(account.out, weights_only=True)
    return content


def test_the_module_in_the_file_is_the_checkpoints(file: dict[str, Any], joint_checkpoint: Path) -> None:
    restored = volume_module(file, Path("f.pth"))
    restored.load_state_dict(file["state"])
    own, _ = joint_encoder_of(read_checkpoint(joint_checkpoint))
    scans = torch.rand(2, 5, 1, 48, 40, generator=torch.Generator().manual_seed(3))
    scans[0, 3:] = torch.nan
    with torch.no_grad():
        found, expected = restored.eval()(scans), own(scans)
    assert found.shape == (2, 32)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(2))
    assert (found[0] - found[1]).abs().max() > 1e-3  # embeddings that are all alike would agree with anything


def test_the_lines_on_the_card_give_the_model(account: ExportAccount, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(account.out.parent)
    names: dict[str, Any] = {}
    exec(account.load_with, names)  # noqa: S102 - the card's lines are what is tested
    assert isinstance(names["model"], JointEncoder)
    assert names["model"].account.missing == names["model"].account.dropped == ()


def test_the_options_in_the_file_are_written_down_whole(file: dict[str, Any]) -> None:
    assert file["format"] == FORMAT
    assert file["options"]["levels"] == ["res1", "res2", "res3", "res4", "res5"]
    assert (file["options"]["attention_axis"], file["options"]["width"]) == ("slice", 32)
    assert file["options"]["options"]["heads"] == 2
    assert file["options"]["options"]["reference_length"] == 64  # a default, which the checkpoint's record left out


def test_account_and_card_say_what_became_of_every_weight(
    account: ExportAccount, file: dict[str, Any], joint_content: dict[str, Any]
) -> None:
    trunk = joint_content["classy_state_dict"]["base_model"]["model"]["trunk"]
    assert set(account.matched) == set(trunk)
    assert account.dropped == ("heads.0.prototypes0.weight",)
    assert account.max_abs_difference <= 1e-5
    card = json.loads(account.card.read_text())
    assert (card["stage"], card["flavour"], card["sha256"]) == (3, "swav", sha256(account.out))
    assert card["input"]["axis_order"].startswith("(B, F, C, H, W)")
    assert (card["input"]["mean"], card["input"]["std"]) == ([0.449] * 3, [0.226] * 3)
    assert file["card"] == {**card, "sha256": None}


def _rewritten(joint_content: dict[str, Any], path: Path, **changes: Any) -> Path:
    changed = copy.copy(joint_content)
    state = joint_content["classy_state_dict"]
    record = {**state["hooks"]["StagedTrainingHook"]["record"], **changes.pop("record", {})}
    model = {**state["base_model"]["model"], **changes}
    changed["classy_state_dict"] = {
        "base_model": {"model": model},
        "hooks": {"StagedTrainingHook": {"record": record}},
    }
    torch.save(changed, path)
    return path


def test_stage_2s_mask_token_is_listed_as_dropped(joint_content: dict[str, Any], tmp_path: Path) -> None:
    trunk = joint_content["classy_state_dict"]["base_model"]["model"]["trunk"]
    path = _rewritten(joint_content, tmp_path / "m.torch", trunk={**trunk, "mask_token": torch.zeros(32)})
    account = export_volume(path, tmp_path / "v.pth")
    assert account.dropped == ("mask_token", "heads.0.prototypes0.weight")


def test_a_checkpoint_of_stage_1_has_no_f_inter(joint_content: dict[str, Any], tmp_path: Path) -> None:
    record = StageRecord(1, "swav").to_dict()
    path = _rewritten(joint_content, tmp_path / "m.torch", record=record)
    with pytest.raises(CheckpointError, match="is of stage 1, which trains f_intra alone; give a checkpoint of stage"):
        export_volume(path, tmp_path / "v.pth")
    with pytest.raises(CheckpointError, match="stage 1 trains f_intra alone"):
        encoder_options(StageRecord(1, "swav"))


def test_a_weight_that_is_absent_or_not_finite_is_named(joint_content: dict[str, Any], tmp_path: Path) -> None:
    trunk = dict(joint_content["classy_state_dict"]["base_model"]["model"]["trunk"])
    del trunk["volume_encoder.input_norm.weight"]
    trunk["slice_projection.bias"] = torch.full((32,), torch.nan)
    with pytest.raises(CheckpointError) as caught:
        export_volume(_rewritten(joint_content, tmp_path / "m.torch", trunk=trunk), tmp_path / "v.pth")
    assert "1 weights are absent: volume_encoder.input_norm.weight" in str(caught.value)
    assert "1 weights are NaN or infinite: slice_projection.bias" in str(caught.value)
    assert not (tmp_path / "v.pth").exists()


@pytest.mark.parametrize("part", ["slice_projection.weight", "_feature_blocks.layer4.2.bn3.bias"])
def test_outputs_that_disagree_stop_the_export(
    part: str, joint_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    through = volume._through_the_format

    def spoiled(content: dict[str, Any], path: Path) -> JointEncoder:
        module = through(content, path)
        module.load_state_dict({part: content["state"][part].roll(1, 0)}, strict=False)
        return module

    monkeypatch.setattr(volume, "_through_the_format", spoiled)
    with pytest.raises(ExportError, match=r"differ by .*nothing was written"):
        export_volume(joint_checkpoint, tmp_path / "v.pth")
    assert list(tmp_path.iterdir()) == []


def test_a_resnet_that_runs_otherwise_than_it_was_trained_stops_the_export(
    joint_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The module from the file and that from the checkpoint agree in a fault of both; the walk does not.
    def other(weights: dict[str, Tensor], images: Tensor) -> Tensor:
        return torch.ones(len(images), 2048)

    monkeypatch.setattr(volume, "resnet_features", other)
    with pytest.raises(ExportError, match=r"differ by .*nothing was written"):
        export_volume(joint_checkpoint, tmp_path / "v.pth")


def test_the_released_encoder_is_checked_with_as_many_slices_as_it_was_built_for() -> None:
    options = encoder_options(
        StageRecord(
            3,
            "swav",
            embedding_width=64,
            levels=("res2", "res5", "res5"),
            volume_encoder={"attention_axis": "embedding", "slices": 16, "heads": 2, "offset_groups": 2},
        )
    )
    volumes = parity_volumes(options)
    assert volumes.shape == (2, 16, 1, 64, 64)
    assert volumes[1, -2:].isnan().all()
    assert not volumes[0].isnan().any()
    module = JointEncoder(**options).eval()
    with torch.no_grad():
        assert volume._difference(Path("m.torch"), module, module, volumes) <= 1e-5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "vissl_jointssl.volume/2"}, "has the format 'vissl_jointssl.volume/2', this version reads"),
        ({"options": {"levels": ["res9"]}}, "its options describe no model of this version"),
        ({"options": {"colour": 1}}, "its options describe no model of this version"),
    ],
)
def test_a_file_of_another_version_is_refused(file: dict[str, Any], changes: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        volume_module({**file, **changes}, Path("f.pth"))
    with pytest.raises(CheckpointError, match=r"the parts \['state'\] are absent"):
        volume_module({"format": FORMAT, "options": {}}, Path("f.pth"))


def test_a_file_as_a_checkpoint_is_the_same_model(file: dict[str, Any]) -> None:
    volumes = parity_volumes(file["options"])
    module = volume_module(file, Path("f.pth"))
    module.load_state_dict(file["state"])
    checkpoint = checkpoint_of_volume_file(file, Path("f.pth"))
    encoder, dropped = joint_encoder_of(checkpoint)
    assert dropped == ()
    with torch.no_grad():
        assert torch.equal(encoder(volumes), module.eval()(volumes))
    assert checkpoint.record is not None
    assert (checkpoint.record.stage, checkpoint.record.flavour) == (file["card"]["stage"], file["card"]["flavour"])
    with pytest.raises(CheckpointError, match=r"its options are not whole \(KeyError\('attention_axis'\)\)"):
        checkpoint_of_volume_file({**file, "options": {}}, Path("f.pth"))


def test_a_file_starts_an_evaluation_as_its_checkpoint_does(account: ExportAccount, joint_checkpoint: Path) -> None:
    start, own = (read_initialisation("stage3", path) for path in (account.out, joint_checkpoint))
    assert start.has_volume_encoder
    found, expected = (build_joint_encoder(one).state_dict() for one in (start, own))
    assert found.keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in found.items())


@pytest.mark.slow
def test_every_stage_that_vissl_trained_is_exported(trained: Path, tmp_path: Path) -> None:
    from vissl_jointssl import load_pretrained

    for stage in (2, 3):
        account = export_volume(trained / f"stage{stage}", tmp_path / f"stage{stage}.pth")
        model = load_pretrained(account.out)
        direct = load_pretrained(trained / f"stage{stage}")
        scans = torch.rand(2, 4, 1, 32, 32)
        with torch.no_grad():
            torch.testing.assert_close(model(scans), direct(scans), atol=1e-5, rtol=0)
        assert json.loads(account.card.read_text())["input"]["training_transforms"] == ["volume_views"]
    with pytest.raises(CheckpointError, match="trains f_intra alone"):
        export_volume(trained / "stage1", tmp_path / "stage1.pth")
