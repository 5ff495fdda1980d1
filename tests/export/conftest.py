"""One training checkpoint of a real ResNet-50 for all export tests; it takes 100 MB, so it is made once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor

from vissl_jointssl.checkpoints import StageRecord
from vissl_jointssl.export.account import ExportAccount
from vissl_jointssl.export.registry import TARGETS
from vissl_jointssl.models.joint_encoder import JointEncoder

RECORD = StageRecord(
    stage=3,
    flavour="swav",
    parent="ab" * 32,
    parent_stage=2,
    slice_embedding_width=3904,
    embedding_width=640,
    levels=("res1", "res2", "res3", "res4", "res5"),
    manifest="cd" * 32,
    version="0.1.0",
)


@pytest.fixture(scope="session")
def f_intra() -> dict[str, Tensor]:
    """Weights of a ResNet-50 by torchvision's names, whose BatchNorms have seen data (no two statistics are equal)."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        weights = torchvision.models.resnet50(weights=None).state_dict()
        for name, weight in weights.items():
            if name.endswith(("running_mean", "bias")):
                weight.normal_(std=0.1)
            elif name.endswith("running_var"):
                weight.uniform_(0.5, 2)
    return {name: weight for name, weight in weights.items() if not name.startswith("fc.")}


@pytest.fixture(scope="session")
def content(f_intra: dict[str, Tensor]) -> dict[str, Any]:
    """A stage 3 checkpoint as VISSL nests it (vissl/hooks/log_hooks.py:450)."""
    trunk = {f"_feature_blocks.{name}": weight for name, weight in f_intra.items()}
    trunk |= {"slice_projection.weight": torch.ones(640, 3904), "mask_token": torch.zeros(640)}
    return {
        "phase_idx": 99,
        "iteration": 1200,
        "iteration_num": 11,
        "train_phase_idx": 99,
        "loss": {},
        "type": "consolidated",
        "classy_state_dict": {
            "base_model": {"model": {"trunk": trunk, "heads": {"0.prototypes0.weight": torch.ones(3, 2)}}, "meta": {}},
            "hooks": {"StagedTrainingHook": {"record": RECORD.to_dict()}},
        },
    }


@pytest.fixture(scope="session")
def checkpoint(content: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("run") / "model_final_checkpoint_phase99.torch"
    torch.save(content, path)
    yield path
    path.unlink()


F_INTER = {"downsample": [2, 1], "heads": 2, "head_width": 8, "offset_groups": 2, "feed_forward_width": 24}


@pytest.fixture(scope="session")
def joint_content(f_intra: dict[str, Tensor]) -> dict[str, Any]:
    """A stage 3 checkpoint with a small f_inter, D = 32, that the same f_intra feeds."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        trunk = JointEncoder(("res1", "res2", "res3", "res4", "res5"), "slice", 32, F_INTER).state_dict()
    trunk |= {f"_feature_blocks.{name}": weight for name, weight in f_intra.items()}
    record = {**RECORD.to_dict(), "embedding_width": 32, "volume_encoder": {"attention_axis": "slice", **F_INTER}}
    model = {"model": {"trunk": dict(trunk), "heads": {"0.prototypes0.weight": torch.ones(3, 2)}}, "meta": {}}
    return {
        "iteration": 7,
        "train_phase_idx": 1,
        "type": "consolidated",
        "classy_state_dict": {"base_model": model, "hooks": {"StagedTrainingHook": {"record": record}}},
    }


@pytest.fixture(scope="session")
def joint_checkpoint(joint_content: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("joint") / "model_final_checkpoint_phase1.torch"
    torch.save(joint_content, path)
    yield path
    path.unlink()


@pytest.fixture(scope="session")
def exported(
    checkpoint: Path, joint_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], ExportAccount]]:
    """The account of an export to a target, made when it is first asked for."""
    folder = tmp_path_factory.mktemp("exported")
    accounts: dict[str, ExportAccount] = {}

    def of(target: str) -> ExportAccount:
        if target not in accounts:
            out = folder / f"{target}{'.safetensors' if target == 'safetensors' else '.pth'}"
            accounts[target] = TARGETS[target](joint_checkpoint if target == "volume" else checkpoint, out)
        return accounts[target]

    yield of
    for account in accounts.values():
        account.out.unlink(missing_ok=True)
