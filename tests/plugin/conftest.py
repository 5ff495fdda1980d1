"""Fixtures of the plugin's tests: composed configs and checkpoints that no engine had to make."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.models import resnet50

from vissl_jointssl.checkpoints import RECORD_HOOK, StageRecord
from vissl_jointssl.plugin.launch import compose

# isort: split
from vissl.config import AttrDict
from vissl.utils.hydra_config import convert_to_attrdict

CPU = ["config.MACHINE.DEVICE=cpu", "config.DISTRIBUTED.NUM_PROC_PER_NODE=1"]


@pytest.fixture
def config_of(tiny_manifest: Path, tmp_path: Path) -> Callable[..., AttrDict]:
    """Compose one of our configs on the tiny volumes, inferred by VISSL but not yet by us."""

    def compose_and_infer(name: str, *overrides: str, **paths: Any) -> AttrDict:
        manifest = paths.get("manifest", tiny_manifest)
        given = [f"config=jointssl/{name}", f"config.CHECKPOINT.DIR='{tmp_path}'", *CPU]
        given += [f"config.DATA.{split}.DATA_PATHS=['{manifest}']" for split in paths.get("splits", ["TRAIN"])]
        if "parent" in paths:
            given.append(f"config.MODEL.WEIGHTS_INIT.PARAMS_FILE='{paths['parent']}'")
        if name == "stage1_swav":
            given.append("config.DATA.TRAIN.BATCHSIZE_PER_REPLICA=4")
        _, config = convert_to_attrdict(compose([*given, *overrides]), dump_config=False)
        return config

    return compose_and_infer


@pytest.fixture(scope="session")
def save_checkpoint() -> Callable[..., Path]:
    """Write a checkpoint as VISSL lays it out: a random ResNet-50, and the weights that are given."""

    def save(folder: Path, record: StageRecord | None, more: Mapping[str, Tensor] | None = None) -> Path:
        resnet = resnet50().state_dict()
        weights = {f"_feature_blocks.{name}": value for name, value in resnet.items() if "fc." not in name}
        hooks = {RECORD_HOOK: {"record": record.to_dict()}} if record else {}
        model = {"model": {"trunk": weights | dict(more or {}), "heads": {}}, "meta": {}}
        state = {"base_model": model, "hooks": hooks, "train_phase_idx": 0}
        path = folder / "model_final_checkpoint_phase0.torch"
        torch.save({"classy_state_dict": state, "iteration": 1}, path)
        return path

    return save


@pytest.fixture(scope="session")
def stage1_checkpoint(tmp_path_factory: pytest.TempPathFactory, save_checkpoint: Callable[..., Path]) -> Path:
    """A checkpoint as stage 1 leaves it, with a random ResNet."""
    return save_checkpoint(tmp_path_factory.mktemp("stage1"), StageRecord(stage=1, flavour="swav"))
