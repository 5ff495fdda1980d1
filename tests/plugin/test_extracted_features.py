"""What the programs that classify features refuse, remove and read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vissl_jointssl.plugin import extracted_features
from vissl_jointssl.plugin.extracted_features import class_ids, extract, read_features


@pytest.fixture
def overrides(tiny_manifest: Path, stage1_checkpoint: Path, tmp_path: Path) -> list[str]:
    given = [f"config.DATA.{split}.DATA_PATHS=['{tiny_manifest}']" for split in ("TRAIN", "TEST")]
    given += [f"config.MODEL.WEIGHTS_INIT.PARAMS_FILE='{stage1_checkpoint}'", f"config.CHECKPOINT.DIR='{tmp_path}'"]
    return ["config=jointssl/knn_slice", *given, "config.MACHINE.DEVICE=cpu"]


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Engines that would have run; nothing does, but one feature file appears."""
    engines: list[str] = []

    def launch(config: object, node_id: int, engine_name: str) -> None:
        engines.append(engine_name)
        np.save(tmp_path / "rank0_chunk0_train_res5avg_features.npy", np.zeros(1))

    monkeypatch.setattr(extracted_features.launch, "launch_on_this_node", launch)
    monkeypatch.setattr(extracted_features, "setup_logging", lambda name: None)
    monkeypatch.setattr(extracted_features, "set_env_vars", lambda **given: None)
    return engines


def test_features_of_an_earlier_run_are_gone_and_other_files_are_not(
    overrides: list[str], launched: list[str], tmp_path: Path
) -> None:
    old = [tmp_path / f"rank1_chunk0_test_res5avg_{kind}.npy" for kind in ("features", "targets", "inds")]
    other = [tmp_path / "rank0_chunk0_train_volume_features.npy", tmp_path / "mine_train_res5avg_features.npy"]
    for path in [*old, *other]:
        np.save(path, np.zeros(1))
    extraction = extract(overrides, "a program")
    assert launched == ["extract_features"]
    assert (extraction.folder, extraction.layers) == (tmp_path, ["res5avg"])
    assert not any(path.exists() for path in old)
    assert all(path.exists() for path in other)
    assert (tmp_path / "rank0_chunk0_train_res5avg_features.npy").exists()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("config.MODEL.FEATURE_EVAL_SETTINGS.EVAL_MODE_ON=False", "EVAL_MODE_ON is False; a program classifies"),
        ("config.SLURM.USE_SLURM=True", "a program reads the features on the machine that extracts them"),
        ("config.DISTRIBUTED.NUM_NODES=2", "a program reads the features on the machine that extracts them"),
    ],
)
def test_a_config_without_features_of_this_machine_is_refused(
    overrides: list[str], launched: list[str], override: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        extract([*overrides, override], "a program")
    assert launched == []


def test_the_ranks_files_are_merged_in_order_and_flattened(tmp_path: Path) -> None:
    for rank, indices in enumerate(([2, 0], [1])):
        prefix = tmp_path / f"rank{rank}_chunk0_test_res5avg"
        np.save(
            f"{prefix}_features.npy", np.array(indices, dtype=np.float16)[:, None, None, None] * np.ones((1, 4, 1, 1))
        )
        np.save(f"{prefix}_targets.npy", np.array(indices)[:, None] % 2)
        np.save(f"{prefix}_inds.npy", np.array(indices))
    found = read_features(tmp_path, "test", "res5avg")
    assert (found.values.shape, found.values.dtype) == ((3, 4), np.float32)
    assert found.values[:, 0].tolist() == [0, 1, 2]
    assert class_ids(found.targets, "this test").tolist() == [0, 1, 0]


def test_absent_features_are_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="No features found for train volume"):
        read_features(tmp_path, "train", "volume")
