"""AMP_TYPE=bfloat16: the trunk computes in it, heads and losses do not, and numbers stay near float32's."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from vissl_jointssl.plugin.config import prepare

# isort: split
from vissl.config import AttrDict
from vissl.models import build_model
from vissl.utils.hydra_config import compose_hydra_configuration, convert_to_attrdict

ON = ["config.MODEL.AMP_PARAMS.USE_AMP=True", "config.MODEL.AMP_PARAMS.AMP_TYPE=bfloat16"]


def _config(*overrides: str) -> AttrDict:
    _, config = convert_to_attrdict(compose_hydra_configuration([*overrides]), dump_config=False)
    return config


def _stage(number: int, manifest: Path, parent: Path, *overrides: str) -> AttrDict:
    skip = ["+config.JOINT_SSL.SKIP_STAGE_2=True"] if number == 3 else []
    paths = [
        f"config.DATA.TRAIN.DATA_PATHS=['{manifest}']",
        f"config.MODEL.WEIGHTS_INIT.PARAMS_FILE='{parent}'",
        "config.DATA.TRAIN.BATCHSIZE_PER_REPLICA=2",
    ]
    return prepare(_config(f"config=jointssl/stage{number}_swav", *paths, *skip, *overrides))


def _model(config: AttrDict) -> nn.Module:
    torch.manual_seed(0)
    return build_model(config.MODEL, config.OPTIMIZER)


def _types_within(model: nn.Module) -> dict[str, torch.dtype]:
    """Types of what convolutions and linear maps give, filled by a forward pass."""
    seen: dict[str, torch.dtype] = {}
    for name, module in model.named_modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.register_forward_hook(lambda _, inputs, output, name=name: seen.update({name: output.dtype}))
    return seen


def test_the_trunk_of_stage_1_is_in_bfloat16_and_its_scores_are_not() -> None:
    images = [torch.rand(4, 3, 64, 64), torch.rand(4, 3, 32, 32)]
    with torch.no_grad():
        exact = _model(_config("config=jointssl/stage1_swav")).eval()(images)
    model = _model(_config("config=jointssl/stage1_swav", *ON)).eval()
    seen = _types_within(model)
    with torch.no_grad():
        rounded = model(images)
    assert {kind for name, kind in seen.items() if name.startswith("trunk.")} == {torch.bfloat16}
    assert {kind for name, kind in seen.items() if name.startswith("heads.")} == {torch.float32}
    for ours, theirs in zip(rounded[0], exact[0], strict=True):
        assert ours.dtype == torch.float32
        assert not torch.equal(ours, theirs)
        assert torch.nn.functional.cosine_similarity(ours, theirs, dim=1).min() > 0.99


@pytest.mark.parametrize("stage", [2, 3])
def test_what_the_heads_get_of_volumes_is_float32_near_float32s(
    stage: int, tiny_manifest: Path, stage1_checkpoint: Path, volumes: Tensor
) -> None:
    given: list[list[Tensor]] = []
    for overrides in (["config.MODEL.AMP_PARAMS.USE_AMP=False"], ON):
        model = _model(_stage(stage, tiny_manifest, stage1_checkpoint, *overrides)).eval()
        model.heads[0].register_forward_pre_hook(
            lambda _, inputs: given.append(list(inputs[0]) if stage == 2 else [inputs[0]])
        )
        torch.manual_seed(1)  # of the mask
        model(volumes)
        (given[-1][0] * torch.linspace(-1, 1, 640)).sum().backward()
        gradients = [weight.grad for weight in model.trunk.parameters() if weight.grad is not None]
        assert gradients
        assert all(gradient.dtype == torch.float32 and gradient.isfinite().all() for gradient in gradients)
    exact, rounded = given
    assert not torch.equal(rounded[0], exact[0])
    for ours, theirs in zip(rounded, exact, strict=True):
        assert ours.dtype == theirs.dtype
        if theirs.is_floating_point():
            torch.testing.assert_close(ours, theirs, rtol=0, atol=0.05 * theirs.abs().max().item())
        else:
            assert torch.equal(ours, theirs)


@pytest.fixture
def volumes() -> Tensor:
    """Two volumes of five and three slices."""
    batch = torch.rand(2, 5, 1, 48, 48, generator=torch.Generator().manual_seed(0))
    batch[1, 3:] = float("nan")
    return batch


@pytest.mark.slow
@pytest.mark.parametrize("parts", [1, 2])
def test_a_run_in_bfloat16_starts_with_the_loss_of_float32(
    parts: int,
    engine: Callable[..., subprocess.CompletedProcess[str]],
    tmp_path: Path,
    tiny_manifest: Path,
    stage1_checkpoint: Path,
) -> None:
    losses = {}
    for name, overrides in (("exact", ["config.MODEL.AMP_PARAMS.USE_AMP=False"]), ("rounded", ON)):
        folder = tmp_path / name
        result = engine(
            "config=jointssl/stage3_swav",
            "config.MACHINE.DEVICE=cpu",
            "config.DISTRIBUTED.BACKEND=gloo",
            "config.DISTRIBUTED.NUM_PROC_PER_NODE=1",
            "config.DATA.PIN_MEMORY=False",
            "config.DATA.NUM_DATALOADER_WORKERS=0",
            "config.DATA.TRAIN.BATCHSIZE_PER_REPLICA=2",
            "config.DATA.TRAIN.TRANSFORMS.0.size=[32,32]",
            "config.DATA.TRAIN.TRANSFORMS.0.num_slices=6",
            "config.OPTIMIZER.num_epochs=1",
            "config.LOG_FREQUENCY=1",
            "config.MODEL.HEAD.PARAMS=[[swav_head,{dims:[640],use_bn:False,num_clusters:[5]}]]",
            "config.MODEL.TEMP_FROZEN_PARAMS_ITER_MAP=[[module.heads.0.prototypes0.weight,1]]",
            "+config.JOINT_SSL.SKIP_STAGE_2=True",
            f"+config.JOINT_SSL.MICRO_BATCHES={parts}",
            f"config.DATA.TRAIN.DATA_PATHS=['{tiny_manifest}']",
            f"config.MODEL.WEIGHTS_INIT.PARAMS_FILE='{stage1_checkpoint}'",
            f"config.CHECKPOINT.DIR='{folder}'",
            *overrides,
        )
        assert result.returncode == 0, result.stderr
        said = result.stdout + result.stderr
        assert ("AMP: the trunk works in bfloat16" in said) == (name == "rounded")
        lines = [json.loads(line) for line in (folder / "stdout.json").read_text().splitlines()]
        losses[name] = next(line["loss"] for line in lines if "loss" in line)
    assert losses["rounded"] != losses["exact"]
    assert losses["rounded"] == pytest.approx(losses["exact"], rel=0.02)
