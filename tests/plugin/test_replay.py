"""A capture is plain data, and taking its step again finds the module at fault."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from vissl_jointssl import cli
from vissl_jointssl.plugin.capture import Capture, CaptureError, config_text, read_capture, write_capture
from vissl_jointssl.plugin.config import prepare
from vissl_jointssl.plugin.launch import compose
from vissl_jointssl.plugin.replay import replay

from classy_vision.generic import distributed_util  # isort: skip - after the plugin has made VISSL importable
from classy_vision.losses import build_loss  # isort: skip
from vissl.config import AttrDict  # isort: skip
from vissl.models import build_model  # isort: skip
from vissl.utils.hydra_config import convert_to_attrdict  # isort: skip

VOLUMES, SLICES, SIDE, PROTOTYPES = 4, 2, 32, 5


@pytest.fixture(autouse=True)
def _device_index() -> Any:
    """A replay tells VISSL to compute on the CPU, for its whole process."""
    before = distributed_util._cuda_device_index
    yield
    distributed_util._cuda_device_index = before


@pytest.fixture(scope="module")
def _healthy(tiny_manifest: Path, stage1_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Capture:
    """A step of stage 3 in which every number is finite."""
    composed = compose(
        [
            "config=jointssl/stage3_swav",
            "config.MACHINE.DEVICE=cpu",
            "config.DISTRIBUTED.NUM_PROC_PER_NODE=1",
            f"config.CHECKPOINT.DIR='{tmp_path_factory.mktemp('run')}'",
            f"config.DATA.TRAIN.DATA_PATHS=['{tiny_manifest}']",
            f"config.DATA.TRAIN.BATCHSIZE_PER_REPLICA={VOLUMES}",
            f"config.MODEL.WEIGHTS_INIT.PARAMS_FILE='{stage1_checkpoint}'",
            f"config.MODEL.HEAD.PARAMS=[[swav_head,{{dims:[640],use_bn:False,num_clusters:[{PROTOTYPES}]}}]]",
            "+config.JOINT_SSL.SKIP_STAGE_2=True",
        ]
    )
    cfg = prepare(convert_to_attrdict(composed, dump_config=False)[1])
    torch.manual_seed(0)
    model = build_model(cfg.MODEL, cfg.OPTIMIZER)
    loss = build_loss(AttrDict({**cfg.LOSS.inter_swav_loss, "name": "inter_swav_loss"}))
    indices = torch.arange(VOLUMES).repeat(2)
    return Capture(
        rank=1,
        faulty_ranks=[1],
        iteration=7,
        said="iteration 7: something is NaN",
        samples=["volume3 (volume3.npy)"],
        indices=indices,
        batch=[torch.randn(VOLUMES, SLICES, 1, SIDE, SIDE) for _ in range(2)],
        target=indices,
        model=dict(model.state_dict()),
        loss=dict(loss.state_dict()),
        random=(torch.get_rng_state(), None),
        scale=None,
        config=config_text(cfg),
    )


@pytest.fixture
def healthy(_healthy: Capture) -> Capture:
    """A copy whose batch a test may spoil."""
    return dataclasses.replace(_healthy, batch=[view.clone() for view in _healthy.batch])


def _with_weight(capture: Capture, name: str, change: Callable[[Tensor], Tensor]) -> Capture:
    return dataclasses.replace(capture, model={**capture.model, name: change(capture.model[name])})


def _replayed(capture: Capture, folder: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    path = folder / "capture_rank1.pt"
    write_capture(capture, path)
    code = cli.main(["replay", str(path)])
    return code, capsys.readouterr().out


def test_the_first_module_whose_output_is_not_finite_is_named(
    healthy: Capture, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "trunk._feature_blocks.layer2.0.conv1.weight"
    code, said = _replayed(_with_weight(healthy, name, lambda weight: weight * 1e38), tmp_path, capsys)
    assert code == 0
    assert said.startswith("iteration 7: something is NaN\n  trunk._feature_blocks.conv1: largest ")
    assert re.search(
        r"not finite first: the output of trunk\._feature_blocks\.layer2\.0\.conv1 \(Conv2d\): (infinite|NaN)\b.*\n"
        r"samples: volume3 \(volume3\.npy\)\n$",
        said,
    )
    assert "layer1.2" in said
    assert "  trunk._feature_blocks.layer2" not in said  # nothing after the fault


def test_a_step_without_a_fault_is_said_to_be_one(
    healthy: Capture, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = _replayed(dataclasses.replace(healthy, rank=0), tmp_path, capsys)
    assert code == 1
    assert "inter_swav_loss: 1." in said  # ln 5 = 1.6
    assert "every number is finite here: this is rank 0's batch, and the fault was first on rank 1" in said


def test_an_input_is_found_before_the_model_runs(healthy: Capture) -> None:
    healthy.batch[1][2, 0, 0, 3, 3] = torch.inf
    healthy.batch[0][0, 1] = torch.nan  # padding
    lines: list[str] = []
    assert replay(healthy, lines.append) == "the input: view 1, rows [2] of the batch"
    assert not lines


def test_a_gradient_is_found_when_the_forward_pass_has_no_fault(healthy: Capture) -> None:
    # Scaled by 2^40, a gradient of 1e-6 is beyond half precision: the first one in the backward pass is at fault.
    found = replay(dataclasses.replace(healthy, scale=2.0**40), lambda line: None)
    assert found is not None
    assert found.startswith("the gradient by the output of heads.0.prototypes0 (Linear), in the backward pass of what")


def test_what_half_precision_cannot_hold_is_a_fault_of_a_mixed_precision_run(healthy: Capture) -> None:
    large = _with_weight(healthy, "heads.0.prototypes0.weight", lambda weight: weight * 1e7)
    found = replay(dataclasses.replace(large, scale=1.0), lambda line: None)
    assert found is not None
    assert re.match(r"the output of heads\.0\.prototypes0 \(Linear\): .* which half precision cannot hold", found)


@pytest.mark.parametrize(
    ("key", "name", "near"),
    [
        ("TRUNK", "joint_trunc", "did you mean joint_trunk"),
        ("HEAD", "os.system", "known: "),
        ("LOSS", "CrossEntropyLoss", "not registered"),
    ],
)
def test_names_resolve_through_registries_only(healthy: Capture, key: str, name: str, near: str) -> None:
    there = {"TRUNK": "NAME: joint_trunk", "HEAD": "- swav_head", "LOSS": "name: inter_swav_loss"}[key]
    config = healthy.config.replace(there, there.rpartition(" ")[0] + f" {name}", 1)
    assert config != healthy.config
    with pytest.raises(CaptureError, match=rf"{re.escape(name)}', not registered") as error:
        replay(dataclasses.replace(healthy, config=config), lambda line: None)
    assert near in str(error.value)


def test_weights_of_another_model_are_refused(healthy: Capture) -> None:
    with pytest.raises(CaptureError, match="the captured weights do not fit"):
        replay(dataclasses.replace(healthy, model={}), lambda line: None)
    with pytest.raises(CaptureError, match=r"the captured buffers do not fit .*other"):
        replay(dataclasses.replace(healthy, loss={**healthy.loss, "other": torch.ones(1)}), lambda line: None)


class _Payload:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.path}",)


def test_a_capture_cannot_run_code_and_other_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "capture_rank0.pt"
    torch.save({"jointssl_capture": 1, "said": _Payload(tmp_path / "ran")}, path)
    with pytest.raises(CaptureError, match=r"capture_rank0\.pt: refused"):
        read_capture(path)
    assert not (tmp_path / "ran").exists()
    path.write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(CaptureError, match="damaged, or no capture"):
        read_capture(path)
    torch.save({"classy_state_dict": {}}, path)
    with pytest.raises(CaptureError, match="not a capture"):
        read_capture(path)
    torch.save({"jointssl_capture": 99}, path)
    with pytest.raises(CaptureError, match="another version"):
        read_capture(path)
    assert cli.main(["replay", str(tmp_path / "absent.pt")]) == 1
