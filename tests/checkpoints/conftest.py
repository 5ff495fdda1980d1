"""Small files with the structure that VISSL 0.1.6 writes (vissl/hooks/log_hooks.py:450)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from vissl_jointssl.checkpoints import StageRecord

LEVELS = ("res1", "res5")


@pytest.fixture
def record() -> StageRecord:
    return StageRecord(
        stage=2,
        flavour="swav",
        parent="ab" * 32,
        parent_stage=1,
        slice_embedding_width=6,
        embedding_width=4,
        levels=LEVELS,
        manifest="cd" * 32,
        version="0.1.0",
    )


@pytest.fixture
def write_checkpoint(tmp_path: Path) -> Callable[..., Path]:
    """Writes a checkpoint of a tiny model; ``record`` goes where StagedTrainingHook puts it."""

    def write(
        name: str = "model_final_checkpoint_phase9.torch",
        *,
        record: StageRecord | dict[str, Any] | None = None,
        iteration: int = 40,
        feature_extractor: bool = False,
        trunk: dict[str, torch.Tensor] | None = None,
        **changes: object,
    ) -> Path:
        if trunk is None:
            trunk = {
                "_feature_blocks.conv1.weight": torch.arange(6.0).reshape(2, 3),
                "_feature_blocks.bn1.num_batches_tracked": torch.tensor(7),
                "slice_projection.weight": torch.ones(4, 6),
                "volume_encoder.blocks.0.weight": torch.ones(2),
                "mask_token": torch.zeros(4),
            }
        if feature_extractor:
            trunk = {f"base_model.{key}": value for key, value in trunk.items()}
        plain = record.to_dict() if isinstance(record, StageRecord) else record
        hooks: dict[str, Any] = {"LogLossLrEtaHook": {}}
        if plain is not None:
            hooks["StagedTrainingHook"] = {"record": plain}
        content = {
            "phase_idx": 9,
            "iteration": iteration,
            "iteration_num": 3,
            "train_phase_idx": 9,
            "loss": {},
            "type": "consolidated",
            "classy_state_dict": {
                "train": True,
                "base_model": {
                    "model": {"trunk": trunk, "heads": {"0.prototypes0.weight": torch.ones(3, 2)}},
                    "meta": {"trunk": {}},
                },
                "optimizer": {"momentum": torch.zeros(2)},
                "hooks": hooks,
            },
            **changes,
        }
        path = tmp_path / name
        torch.save(content, path)
        return path

    return write
