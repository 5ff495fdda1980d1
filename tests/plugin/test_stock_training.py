"""Stock VISSL trains, resumes, extracts and evaluates on CPU through our launcher, in processes of its own."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

IMAGES, SIZE = 8, 32

# What a 32-pixel image on two cores needs; all else is as in VISSL's YAML of that name.
TWO_CROPS = ["config.DATA.TRAIN.TRANSFORMS.0.size_crops=[32]"]
TINY_CLUSTERS = [
    "config.LOSS.deepclusterv2_loss.num_clusters=[3,3]",
    "config.LOSS.deepclusterv2_loss.kmeans_iters=2",
]
CROP = ["config.DATA.TRAIN.TRANSFORMS.1.size=32"]
METHODS = {
    "swav": [
        "config=test/integration_test/quick_swav",
        "config.DATA.TRAIN.TRANSFORMS.0.size_crops=[32,16]",
        "config.DATA.TRAIN.TRANSFORMS.0.num_crops=[2,1]",
        "config.DATA.TRAIN.TRANSFORMS.0.total_num_crops=3",
        "config.MODEL.HEAD.PARAMS=[[swav_head,{dims:[2048,32,16],use_bn:True,num_clusters:[10]}]]",
    ],
    "deepclusterv2": ["config=test/integration_test/quick_deepcluster_v2", *TWO_CROPS, *TINY_CLUSTERS],
    "simclr": ["config=test/integration_test/quick_simclr", *CROP],
    "moco": ["config=test/integration_test/quick_moco", *CROP, "config.LOSS.moco_loss.queue_size=16"],
    "barlow_twins": ["config=test/integration_test/quick_barlow_twins", *CROP],
    "swav_momentum": ["config=test/integration_test/quick_swav_momentum"],
    # As published, written for 64 GPUs, apex AMP, apex LARC and apex SyncBN: only data, device and size change.
    "published_swav": [
        "config=pretrain/swav/swav_8node_resnet",
        "config.DATA.TRAIN.TRANSFORMS.0.size_crops=[32,16]",
        "config.DISTRIBUTED.NUM_NODES=1",
    ],
    "published_deepclusterv2": [
        "config=pretrain/deepcluster_v2/deepclusterv2_2crops_resnet",
        *TWO_CROPS,
        "config.LOSS.deepclusterv2_loss.num_clusters=[3,3,3]",
        "config.DISTRIBUTED.NUM_NODES=1",
    ],
}

# Runs several commands in one process, for tests that are not about processes: imports take longer than the runs.
# A name among them is a folder whose last epoch is to be forgotten.
SEVERAL_RUNS = """
import json, pathlib, sys
import vissl_jointssl.plugin
from vissl_jointssl.plugin.launch import main
import torch
if __name__ == "__main__":
    for item in json.loads(sys.argv[1]):
        if isinstance(item, str):
            for path in [*pathlib.Path(item).glob("model_final*"), pathlib.Path(item) / "checkpoint.torch"]:
                path.unlink()
        else:
            main(item)
            torch.distributed.destroy_process_group()
"""


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Eight images of noise in two class folders."""
    folder = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    for index in range(IMAGES):
        path = folder / "ab"[index % 2] / f"{index}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(generator.integers(0, 255, (SIZE, SIZE, 3), dtype=np.uint8)).save(path)
    return folder


def data(images: Path, split: str = "TRAIN", batch: int = 2) -> list[str]:
    """Overrides that point a split at the images."""
    where = f"config.DATA.{split}"
    return [
        f"{where}.DATA_SOURCES=[disk_folder]",
        f"{where}.DATASET_NAMES=[tiny]",
        f"{where}.DATA_PATHS=[{images}]",
        f"{where}.BATCHSIZE_PER_REPLICA={batch}",
        f"{where}.DATA_LIMIT=-1",
    ]


def command(images: Path, method: str, ranks: int, folder: Path, workers: int = 0) -> list[str]:
    """Overrides of a run of two epochs that leaves a checkpoint after each."""
    batch = 2 if ranks > 1 else 4
    return [
        *METHODS[method],
        *data(images, batch=batch),
        "config.MACHINE.DEVICE=cpu",
        f"config.DATA.NUM_DATALOADER_WORKERS={workers}",
        f"config.DISTRIBUTED.NUM_PROC_PER_NODE={ranks}",
        "config.OPTIMIZER.num_epochs=2",
        "config.CHECKPOINT.CHECKPOINT_FREQUENCY=1",
        "config.LOG_FREQUENCY=1",
        f"config.CHECKPOINT.DIR={folder}",
    ]


def run(program: list[str], cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a Python program from ``cwd`` with one thread per process."""
    return subprocess.run(
        [sys.executable, *program],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def launch(root: Path, cwd: Path, overrides: list[str]) -> str:
    """Run our launcher as a user does; its log, after it has succeeded."""
    result = run([str(root / "tools/run_distributed_engines.py"), *overrides], cwd)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    return result.stdout


def steps(folder: Path) -> list[dict]:
    """What rank 0 logged per iteration."""
    return [json.loads(line) for line in (folder / "stdout.json").read_text().splitlines()]


def forget_the_last_epoch(folder: Path) -> None:
    """Leave a run as if it had been killed in its second epoch."""
    for path in [*folder.glob("model_final*"), *folder.glob("model_phase1*"), folder / "checkpoint.torch"]:
        path.unlink(missing_ok=True)
    (folder / "stdout.json").unlink()


def assert_trained(folder: Path, epochs: list[int]) -> None:
    """Two epochs of finite losses, or one after a resume, and a final checkpoint that says so."""
    logged = steps(folder)
    assert sorted({step["ep"] for step in logged}) == epochs
    assert all(math.isfinite(step["loss"]) for step in logged), logged
    final = torch.load(folder / "model_final_checkpoint_phase1.torch", mmap=True)
    assert final["train_phase_idx"] == 1
    assert final["iteration"] == 4  # 8 images / 4 per step of all ranks * 2 epochs


def drop_checkpoints(folder: Path) -> None:
    """A ResNet-50 checkpoint takes 200 MB, and pytest keeps the folders of three sessions."""
    for path in folder.rglob("*.torch"):
        path.unlink()


def train_and_resume(root: Path, images: Path, folder: Path, method: str, ranks: int, workers: int = 0) -> str:
    """Train for two epochs, forget the second and resume; the log of the first run."""
    overrides = command(images, method, ranks, folder, workers)
    log = launch(root, folder.parent, overrides)
    assert_trained(folder, [0, 1])
    whole = steps(folder)
    forget_the_last_epoch(folder)
    resumed = launch(root, folder.parent, overrides)
    assert f"Resume from file: {folder}/model_phase0.torch" in resumed
    assert_trained(folder, [1])
    # The schedule goes on where it was, so optimizer and position were restored.
    assert [step["lr"] for step in steps(folder)] == [step["lr"] for step in whole if step["ep"] == 1]
    return log


@pytest.fixture(scope="module")
def swav(tmp_path_factory, root, images):
    """A SwAV run of two ranks, resumed; its folder and log."""
    folder = tmp_path_factory.mktemp("swav") / "run"
    log = train_and_resume(root, images, folder, "swav", ranks=2)
    yield folder, log
    drop_checkpoints(folder)


def test_stock_swav_trains_and_resumes_on_two_ranks_and_says_what_replaces_apex(swav):
    _, log = swav
    for notice in ("LARC: apex is not needed", "SyncBN: off, because", "Backend: gloo, because"):
        assert log.count(notice) == 1, notice


def test_deepcluster_resumes_and_a_swav_checkpoint_is_extracted_and_evaluated(swav, images, root, tmp_path):
    weights = swav[0] / "model_final_checkpoint_phase1.torch"
    pretraining = command(images, "deepclusterv2", 1, tmp_path / "deepcluster", workers=1)
    both_splits = [*data(images, "TRAIN", batch=4), *data(images, "TEST", batch=4)]
    evaluation = [
        *both_splits,
        "config.DATA.TRAIN.LABEL_SOURCES=[disk_folder]",
        "config.DATA.TEST.LABEL_SOURCES=[disk_folder]",
        "config.DATA.TRAIN.TRANSFORMS.0.size=32",
        "config.DATA.TEST.TRANSFORMS.0.size=32",
        "config.DATA.TEST.TRANSFORMS.1.size=32",
        "config.DATA.NUM_DATALOADER_WORKERS=0",
        "config.MACHINE.DEVICE=cpu",
        "config.DISTRIBUTED.NUM_PROC_PER_NODE=1",
        f"config.MODEL.WEIGHTS_INIT.PARAMS_FILE={weights}",
    ]
    extraction = [
        "config=feature_extraction/extract_resnet_in1k_8gpu",
        "+config/feature_extraction/trunk_only=rn50_res5",
        *evaluation,
        "config.DATA.TRAIN.TRANSFORMS.1.size=32",
        f"config.CHECKPOINT.DIR={tmp_path / 'features'}",
    ]
    linear = [
        "config=test/integration_test/quick_eval_in1k_linear",
        *evaluation,
        "config.MODEL.FEATURE_EVAL_SETTINGS.LINEAR_EVAL_FEAT_POOL_OPS_MAP=[[res5avg,[Identity,[]]]]",
        "config.MODEL.HEAD.PARAMS=[[eval_mlp,{in_channels:2048,dims:[2048,2]}]]",
        "config.METERS.accuracy_list_meter.topk_values=[1]",
        f"config.CHECKPOINT.DIR={tmp_path / 'linear'}",
    ]
    program = tmp_path / "several_runs.py"
    program.write_text(f"import sys\nsys.path.insert(0, {str(root)!r})\n{SEVERAL_RUNS}")
    deepcluster = tmp_path / "deepcluster"
    runs = [pretraining, str(deepcluster), pretraining, extraction, linear]
    result = run([str(program), json.dumps(runs)], tmp_path)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    assert f"Resume from file: {deepcluster}/model_phase0.torch" in result.stdout
    assert sorted(step["ep"] for step in steps(deepcluster)) == [0, 0, 1, 1, 1, 1]
    assert_trained(deepcluster, [0, 1])
    assert_features_are_those_of_torchvision(tmp_path / "features", weights, images)
    metrics = [json.loads(line) for line in (tmp_path / "linear/metrics.json").read_text().splitlines()]
    accuracy = [line["test_accuracy_list_meter"]["top_1"]["res5avg"] for line in metrics if "test_" in str(line)]
    assert accuracy
    assert all(value in {100 * hits / IMAGES for hits in range(IMAGES + 1)} for value in accuracy)
    drop_checkpoints(tmp_path)


def assert_features_are_those_of_torchvision(folder: Path, weights: Path, images: Path) -> None:
    """Extracted features equal those of torchvision's ResNet-50 with the checkpoint's weights."""
    from torchvision.models import resnet50
    from torchvision.transforms.functional import normalize, to_tensor

    trunk = torch.load(weights)["classy_state_dict"]["base_model"]["model"]["trunk"]
    model = resnet50()
    model.fc = torch.nn.Identity()
    model.load_state_dict({key.removeprefix("_feature_blocks."): value for key, value in trunk.items()})
    paths = sorted(images.rglob("*.png"))  # the order of torchvision's ImageFolder
    batch = torch.stack(
        [normalize(to_tensor(Image.open(path)), [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]) for path in paths]
    )
    with torch.no_grad():
        expected = model.eval()(batch).numpy()
    for split in ("train", "test"):
        found = [np.load(path) for path in sorted(folder.glob(f"rank0_chunk*_{split}_res5avg_features.npy"))]
        order = np.concatenate(
            [np.load(path) for path in sorted(folder.glob(f"rank0_chunk*_{split}_res5avg_inds.npy"))]
        )
        assert sorted(order.tolist()) == list(range(IMAGES))
        np.testing.assert_allclose(np.concatenate(found).reshape(IMAGES, -1), expected[order], rtol=1e-3, atol=1e-5)


def test_a_failed_rank_ends_the_program_with_the_cause_in_its_last_line(root, images, tmp_path):
    overrides = command(images, "simclr", 2, tmp_path / "run")
    result = run(
        [str(root / "tools/run_distributed_engines.py"), *overrides, "config.LOSS.name=no_such_loss"], tmp_path
    )
    assert result.returncode == 1
    assert "no_such_loss" in result.stderr.splitlines()[-1]


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("method", sorted(METHODS))
def test_stock_methods_train_and_resume(method, ranks, root, images, tmp_path):
    log = train_and_resume(root, images, tmp_path / "run", method, ranks)
    if method.startswith("published"):
        for notice in ("AMP: off, because", "LARC: apex is not needed", "SyncBN: off, because", "Run id: auto"):
            assert log.count(notice) == 1, notice
    drop_checkpoints(tmp_path)
