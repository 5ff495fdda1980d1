"""The 3D CNN as a VISSL trunk: trained by both losses of volumes, evaluated like any other."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from vissl.config import AttrDict
from vissl.models.trunks import get_model_trunk

import vissl_jointssl.plugin  # noqa: F401 - makes VISSL importable
from vissl_jointssl.checkpoints import CheckpointError, StageRecord, hand_over, newest_checkpoint, read_checkpoint
from vissl_jointssl.export.account import ExportError
from vissl_jointssl.export.torchvision import export_torchvision
from vissl_jointssl.plugin.config import prepare
from vissl_jointssl.plugin.config_faults import ConfigError

SEVERAL_RUNS = """
import json, sys
import vissl_jointssl.plugin
from vissl_jointssl.plugin.launch import main
import torch
if __name__ == "__main__":
    for overrides in json.loads(sys.argv[1]):
        main(overrides)
        torch.distributed.destroy_process_group()
"""
CPU = ["config.MACHINE.DEVICE=cpu", "config.DISTRIBUTED.NUM_PROC_PER_NODE=1", "config.DATA.NUM_DATALOADER_WORKERS=0"]
EVALUATED = [
    "config.MODEL.TRUNK.NAME=volume_cnn_trunk",
    *(
        f"config.DATA.{split}.TRANSFORMS.0.{value}"
        for split in ("TRAIN", "TEST")
        for value in ("num_slices=6", "size=[32,32]")
    ),
]


@pytest.fixture(scope="module")
def trained_3d(tiny_manifest: Path, root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An epoch of 3D-SwAV, and its linear evaluation and extraction."""
    folder = tmp_path_factory.mktemp("swav_3d")
    data = [f"config.DATA.{split}.DATA_PATHS=['{tiny_manifest}']" for split in ("TRAIN", "TEST")]
    training = [
        "config=jointssl/baselines/swav_3d",
        *CPU,
        data[0],
        "config.DATA.TRAIN.BATCHSIZE_PER_REPLICA=4",
        "config.DATA.TRAIN.TRANSFORMS.0.num_slices=6",
        "config.DATA.TRAIN.TRANSFORMS.0.size=[32,32]",
        "config.MODEL.HEAD.PARAMS=[[swav_head,{dims:[512,64,32],use_bn:True,num_clusters:[5]}]]",
        "config.MODEL.TEMP_FROZEN_PARAMS_ITER_MAP=[[module.heads.0.prototypes0.weight,1]]",
        "config.OPTIMIZER.num_epochs=1",
        "config.LOG_FREQUENCY=1",
        f"config.CHECKPOINT.DIR='{folder / 'run'}'",
    ]
    weights = folder / "run" / "model_final_checkpoint_phase0.torch"
    evaluations = [
        [
            f"config=jointssl/{name}",
            *CPU,
            *data,
            *EVALUATED,
            f"config.MODEL.WEIGHTS_INIT.PARAMS_FILE='{weights}'",
            "config.OPTIMIZER.num_epochs=1",
            f"config.CHECKPOINT.DIR='{folder / name}'",
        ]
        for name in ("linear_volume", "extract_volumes")
    ]
    program = folder / "several_runs.py"
    program.write_text(f"import sys\nsys.path.insert(0, {str(root)!r})\n{SEVERAL_RUNS}")
    result = subprocess.run(
        [sys.executable, str(program), json.dumps([training, *evaluations])],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    return folder


def test_3d_swav_trains_with_prototypes_on_the_unit_sphere(trained_3d: Path) -> None:
    losses = [json.loads(line)["loss"] for line in (trained_3d / "run" / "stdout.json").read_text().splitlines()]
    assert len(losses) == 2  # 8 volumes, 4 a step
    assert all(math.isfinite(loss) and loss > 0 for loss in losses)
    checkpoint = read_checkpoint(trained_3d / "run" / "model_final_checkpoint_phase0.torch")
    assert checkpoint.record is None
    torch.testing.assert_close(checkpoint.heads["0.prototypes0.weight"].norm(dim=1), torch.ones(5))


def test_its_volumes_are_evaluated_linearly_and_extracted(trained_3d: Path) -> None:
    metrics = [json.loads(line) for line in (trained_3d / "linear_volume" / "metrics.json").open()]
    assert metrics[-1]["test_accuracy_list_meter"]["top_1"]["volume"] in (0.0, 50.0, 100.0)  # two test volumes
    features = np.load(trained_3d / "extract_volumes" / "rank0_chunk0_train_volume_features.npy")
    assert features.shape == (8, 512)
    assert np.isfinite(features).all()
    assert features.std(axis=0).max() > 0


def test_the_extracted_features_are_those_of_its_weights(trained_3d: Path, tiny_manifest: Path) -> None:
    from vissl_jointssl.models.volume_cnn import VolumeCNN
    from vissl_jointssl.plugin.volume_dataset import VolumeDataset
    from vissl_jointssl.plugin.volume_views import VolumeCentreView

    network = VolumeCNN().eval()
    network.load_state_dict(read_checkpoint(newest_checkpoint(trained_3d / "run") or "").trunk)
    folder = trained_3d / "extract_volumes"
    features = np.load(folder / "rank0_chunk0_train_volume_features.npy")
    indices = np.load(folder / "rank0_chunk0_train_volume_inds.npy").ravel()
    volumes = VolumeDataset({"DATA": {"TRAIN": {}}}, str(tiny_manifest), "TRAIN", "", "")
    view = VolumeCentreView(num_slices=6, size=[32, 32])
    with torch.no_grad():
        expected = network(torch.stack([view(volumes[int(index)][0]) for index in indices]))
    np.testing.assert_allclose(features, expected, atol=1e-5)


def test_its_checkpoint_is_neither_a_stages_parent_nor_a_2d_network(trained_3d: Path, tmp_path: Path) -> None:
    path = trained_3d / "run" / "model_final_checkpoint_phase0.torch"
    names = ["_feature_blocks.conv1.weight"]
    with pytest.raises(CheckpointError, match=r"no weights called _feature_blocks\.\*"):
        hand_over(read_checkpoint(path), StageRecord(stage=2, flavour="swav"), names, allow_unrecorded=True)
    with pytest.raises(ExportError, match="weights of a ResNet-50 are absent"):
        export_torchvision(path, tmp_path / "f_intra.pth")


def test_an_evaluation_names_the_trunk_that_the_weights_are_not_of(
    config_of: Callable[..., AttrDict], stage1_checkpoint: Path, trained_3d: Path
) -> None:
    batch = "config.DATA.TRAIN.BATCHSIZE_PER_REPLICA=4"
    splits = ["TRAIN", "TEST"]
    with pytest.raises(ConfigError, match=r"no weights called stem\.\*, which volume_cnn_trunk needs; give the check"):
        prepare(config_of("linear_volume", EVALUATED[0], batch, parent=stage1_checkpoint, splits=splits))
    ours = trained_3d / "run" / "model_final_checkpoint_phase0.torch"
    with pytest.raises(ConfigError, match=r"no weights called _feature_blocks\.\*, which joint_trunk needs"):
        prepare(config_of("linear_volume", batch, parent=ours, splits=splits))
    config = prepare(config_of("linear_volume", EVALUATED[0], batch, parent=ours, splits=splits))
    assert config.MODEL.HEAD.PARAMS[0][1] == {"in_channels": 512, "dims": [512, 2]}


@pytest.mark.parametrize(
    ("name", "override", "message"),
    [
        ("swav_3d", "config.MODEL.TRUNK.NAME=volume_cnn", r"NAME is 'volume_cnn'; did you mean volume_cnn_trunk\?"),
        (
            "swav_3d",
            "config.MODEL.TRUNK.NAME=resnet",
            r"DATA_SOURCES is \['volume_dataset'\]; a baseline on resnet reads \[slice_dataset\]",
        ),
        ("swav_3d", "config.JOINT_SSL.STAGE=1", r"JOINT_SSL\.STAGE is 1; purpose baseline has no stage: leave it out"),
        ("swav_3d", "config.JOINT_SSL.PURPOSE=base", r"must be one of \('pretrain', 'baseline', 'evaluate'\)"),
        ("swav_3d", "config.MODEL.HEAD.PARAMS.0.1.dims=[640,128]", "dims begin with 640, but volumes have width 512"),
        ("deepclusterv2_3d", "config.LOSS.inter_deepclusterv2_loss.num_clusters=[9]", "9 clusters of 8 volumes"),
    ],
)
def test_what_is_wrong_with_a_baseline_is_said_before_it_starts(
    config_of: Callable[..., AttrDict], name: str, override: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        prepare(config_of(f"baselines/{name}", override))


def test_an_unknown_feature_answers_with_the_known() -> None:
    trunk = get_model_trunk("volume_cnn_trunk")(AttrDict({}), "volume_cnn_trunk").eval()
    volumes = torch.rand(1, 6, 1, 32, 32)
    with torch.no_grad():
        (embeddings,) = trunk(volumes)
        (feature,) = trunk(volumes, ["volume"])
        assert torch.equal(embeddings, feature)
        with pytest.raises(ValueError, match="volume_cnn_trunk has no feature 'slices'; known: volume"):
            trunk(volumes, ["slices"])
