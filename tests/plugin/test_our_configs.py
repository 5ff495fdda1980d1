"""Every config of ours composes, is found right, makes a model, and trains or evaluates on tiny volumes.

The names come from the folder, so that a config added later is held to the same.
"""

from __future__ import annotations

import copy
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from omegaconf import DictConfig, OmegaConf

from vissl_jointssl.checkpoints import RECORD_HOOK, SLICE_ENCODER_PREFIX, SLICE_PROJECTION, StageRecord
from vissl_jointssl.export.torchvision import export_torchvision
from vissl_jointssl.manifest import read_manifest, write_manifest
from vissl_jointssl.models.joint_encoder import JointEncoder
from vissl_jointssl.models.slice_encoder import SliceEncoder
from vissl_jointssl.models.volume_file import encoder_options
from vissl_jointssl.plugin.config import prepare
from vissl_jointssl.plugin.launch import compose

# isort: split
from vissl.config import AttrDict
from vissl.models import build_model
from vissl.utils.hydra_config import convert_to_attrdict

CONFIGS = Path(__file__).parents[2] / "configs"
NAMES = sorted(
    path.relative_to(CONFIGS / "config").with_suffix("").as_posix()
    for path in (CONFIGS / "config" / "jointssl").rglob("*.yaml")
)
RECIPES = sorted((CONFIGS / "recipes").glob("*.yaml"))
SLICES, PIXELS = 8, 32  # 8 slices: the embedding axis needs a multiple of its 8 groups

# What volumes of 5 to 7 slices of 32x32 and two cores need; all else is as the config says.
TINY_LOSSES = {
    "barlow_twins_loss": [
        "config.LOSS.barlow_twins_loss.embedding_dim=16",
        "config.MODEL.HEAD.PARAMS=[[mlp,{dims: [2048,16]}]]",
    ],
    "deepclusterv2_loss": ["config.LOSS.deepclusterv2_loss.num_clusters=[3,3,3]"],
    "inter_deepclusterv2_loss": ["config.LOSS.inter_deepclusterv2_loss.num_clusters=[2,2]"],
    "moco_loss": [
        "config.LOSS.moco_loss.queue_size=16",
        "config.OPTIMIZER.num_epochs=3",  # as many as its schedule has steps
        "config.OPTIMIZER.param_schedulers.lr.milestones=[1,2]",
    ],
}


@cache
def published(name: str) -> DictConfig:
    """A config as it is written; composing takes most of a test's time."""
    return compose([f"config={name}"])


def tiny(name: str, manifest: Path, folder: Path, parent: Path | None) -> list[str]:
    """The command line that runs a config for one epoch on the tiny volumes, on CPU."""
    config = published(name).config
    volumes = "volume_dataset" in config.DATA.TRAIN.DATA_SOURCES
    overrides = [
        f"config={name}",
        "config.MACHINE.DEVICE=cpu",
        "config.DISTRIBUTED.NUM_PROC_PER_NODE=1",
        "config.DATA.NUM_DATALOADER_WORKERS=0",
        "config.OPTIMIZER.num_epochs=1",
        f"config.CHECKPOINT.DIR='{folder}'",
        *TINY_LOSSES.get(config.LOSS.name, []),
    ]
    for split in ("TRAIN", "TEST") if config.TEST_MODEL else ("TRAIN",):
        overrides += [
            f"config.DATA.{split}.DATA_PATHS=['{manifest}']",
            f"config.DATA.{split}.BATCHSIZE_PER_REPLICA={2 if volumes else 8}",
            *_tiny_transforms(f"config.DATA.{split}.TRANSFORMS", config.DATA[split].TRANSFORMS),
        ]
    if parent is not None:
        overrides.append(f"config.MODEL.WEIGHTS_INIT.PARAMS_FILE='{parent}'")
    return overrides


def _tiny_transforms(where: str, transforms: Any) -> list[str]:
    overrides = []
    for index, transform in enumerate(transforms):
        if "size_crops" in transform:
            sizes = [PIXELS, PIXELS // 2][: len(transform["size_crops"])]
            overrides.append(f"{where}.{index}.size_crops={sizes}")
        elif transform["name"].startswith("volume_"):
            overrides += [
                f"++{where}.{index}.num_slices={SLICES}",
                f"++{where}.{index}.size=[{PIXELS},{PIXELS}]",
            ]
        elif "size" in transform:
            overrides.append(f"{where}.{index}.size={PIXELS}")
    return overrides


def inferred(name: str, overrides: list[str]) -> AttrDict:
    """The config with a command line's overrides as VISSL completes it, before we do."""
    composed = copy.deepcopy(published(name))
    for override in overrides[1:]:  # the first names the config
        key, _, value = override.lstrip("+").partition("=")
        OmegaConf.update(composed, key, yaml.safe_load(value), force_add=True)
    return convert_to_attrdict(composed, dump_config=False)[1]


def stages_before() -> dict[str, set[str]]:
    """Each config of a recipe, and those whose checkpoint it starts from."""
    before: dict[str, set[str]] = {}
    for path in RECIPES:
        configs = [stage["config"] for stage in yaml.safe_load(path.read_text())["stages"]]
        for parent, child in itertools.pairwise(configs):
            before.setdefault(child, set()).add(parent)
    return before


@pytest.fixture(scope="session")
def parent_of(tiny_manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path | None]:
    """A checkpoint with the weights and the record that the config before a config would have written."""
    folder = tmp_path_factory.mktemp("parents")

    def parent(name: str) -> Path | None:
        section = published(name).config.JOINT_SSL
        purpose, stage = section.get("PURPOSE", "pretrain"), section.get("STAGE")
        if purpose == "baseline" or stage == 1:
            return None
        if purpose == "evaluate":
            before = "jointssl/stage3_swav"
        else:
            flavour = section.get("FLAVOUR", "swav")
            found = stages_before().get(name, {f"jointssl/stage{stage - 1}_{flavour}"})
            needed = 1 if section.get("SKIP_STAGE_2") else stage - 1  # a recipe's own override may skip it as well
            (before,) = {one for one in found if needed == published(one).config.JOINT_SSL.STAGE}
        path = folder / before.replace("/", "_") / "model_final_checkpoint_phase0.torch"
        if not path.exists():
            config = prepare(inferred(before, tiny(before, tiny_manifest, path.parent, parent(before))))
            _save(path, StageRecord.from_dict(config.JOINT_SSL.RECORD))
        return path

    return parent


def _save(path: Path, record: StageRecord) -> None:
    """A checkpoint with every weight of its trunk that takes little room: in most, all of an output's are the same."""
    with torch.device("meta"):
        encoder = SliceEncoder().blocks if record.stage == 1 else JointEncoder(**encoder_options(record))
    prefix = SLICE_ENCODER_PREFIX if record.stage == 1 else ""
    trunk = {prefix + name: _small(name, value.shape) for name, value in encoder.state_dict().items()}
    trunk[f"{SLICE_ENCODER_PREFIX}conv1.weight"] = torch.randn(64, 3, 7, 7) * 0.1
    if record.stage > 1:
        trunk[SLICE_PROJECTION] = torch.randn(record.embedding_width, record.slice_embedding_width) * 0.02
    model = {"model": {"trunk": trunk, "heads": {}}, "meta": {"trunk": {}}}
    path.parent.mkdir(parents=True, exist_ok=True)
    hooks = {RECORD_HOOK: {"record": record.to_dict()}}
    torch.save({"classy_state_dict": {"base_model": model, "hooks": hooks}, "type": "consolidated"}, path)


def _small(name: str, shape: torch.Size) -> torch.Tensor:
    if len(shape) < 2:
        kept = torch.ones(()) if name.endswith(("weight", "running_var")) else torch.zeros(())
        return (kept.long() if name.endswith("num_batches_tracked") else kept).expand(shape)
    # Equal weights add a mean of their inputs: one root of their number less would grow over 50 layers to no number.
    return (torch.randn(shape[0], *[1] * (len(shape) - 1)) / shape[1:].numel()).expand(shape)


@pytest.mark.parametrize("name", NAMES)
def test_a_config_composes_is_found_right_and_makes_a_model(
    name: str, tiny_manifest: Path, parent_of: Callable[[str], Path | None], tmp_path: Path
) -> None:
    config = prepare(inferred(name, tiny(name, tiny_manifest, tmp_path, parent_of(name))))
    with torch.device("meta"):  # sizes only: a ResNet-50's random weights would take most of the time
        model = build_model(config.MODEL, config.OPTIMIZER)
    names = [parameter for parameter, _ in model.trunk.named_parameters()]
    assert names
    # vissl/utils/optimizer_helper.py sorts by the substring "head", vissl/utils/checkpoint.py:875 by "pos_embedding"
    assert not [one for one in names if "head" in one or "pos_embedding" in one]


@pytest.mark.parametrize("name", NAMES)
def test_a_config_opens_with_what_it_is_needs_leaves_runs_and_costs(name: str) -> None:
    lines = (CONFIGS / "config" / f"{name}.yaml").read_text().splitlines()
    assert lines[0] == "# @package _global_"
    header = "\n".join(lines[1 : next(index for index, line in enumerate(lines) if not line.startswith("#"))])
    assert header.startswith("# ")
    for word in ("Needs", "Leaves", "Run", "Cost"):
        assert f"\n# {word}" in header, word
    assert f"config={name} " in header or "make demo" in header or "jointssl train configs/recipes/" in header


def test_2d_baselines_have_the_papers_batch_and_epochs_and_our_grey() -> None:
    baselines = [name for name in NAMES if name.endswith("_slices") and "/baselines/" in name]
    assert len(baselines) == 5
    for name in baselines:
        config = published(name).config
        ranks = config.DISTRIBUTED.NUM_PROC_PER_NODE * config.DISTRIBUTED.NUM_NODES
        assert config.DATA.TRAIN.BATCHSIZE_PER_REPLICA * ranks == 1024
        assert config.OPTIMIZER.num_epochs == 100
        assert config.DATA.TRAIN.TRANSFORMS[-1].mean == [0.449] * 3


@pytest.mark.parametrize(("name", "stock"), [
    ("simclr", "pretrain/simclr/simclr_8node_resnet"),
    ("mocov2", "pretrain/moco/moco_1node_resnet"),
    ("barlow_twins", "pretrain/barlow_twins/barlow_twins_4node_resnet"),
])  # fmt: skip
def test_2d_baselines_are_stock_vissl_in_model_loss_and_views(name: str, stock: str) -> None:
    ours, theirs = published(f"jointssl/baselines/{name}_slices").config, published(stock).config
    for section in ("MODEL", "LOSS"):
        assert ours[section] == theirs[section]
    # all but Normalize
    assert ours.DATA.TRAIN.TRANSFORMS[:-1] == theirs.DATA.TRAIN.TRANSFORMS[:-1]
    rates = [config.OPTIMIZER.param_schedulers.lr.get("schedulers") for config in (ours, theirs)]
    assert rates[0] == rates[1]


def test_3d_baselines_have_the_papers_batch_and_epochs() -> None:
    for name in ("swav_3d", "deepclusterv2_3d"):
        config = published(f"jointssl/baselines/{name}").config
        assert config.DATA.TRAIN.BATCHSIZE_PER_REPLICA * config.DISTRIBUTED.NUM_PROC_PER_NODE == 12
        assert config.OPTIMIZER.num_epochs == 100


ABLATIONS = {
    "without_mask_prediction": (3, {"JOINT_SSL": {"SKIP_STAGE_2": True}}),
    "without_multi_level_stage2": (2, {"MODEL": {"TRUNK": {"JOINT_SSL": {"LEVELS": ["res5"]}}}}),
    "without_multi_level_stage3": (3, {"MODEL": {"TRUNK": {"JOINT_SSL": {"LEVELS": ["res5"]}}}}),
    "released_stage2": (2, {"MODEL": {"TRUNK": {"JOINT_SSL": {"PRESET": "released"}}}}),
    "released_stage3": (3, {"MODEL": {"TRUNK": {"JOINT_SSL": {"PRESET": "released"}}}}),
}


@pytest.mark.parametrize("flavour", ["swav", "deepclusterv2"])
@pytest.mark.parametrize("name", ABLATIONS)
def test_an_ablation_differs_from_the_method_in_one_thing(name: str, flavour: str) -> None:
    stage, difference = ABLATIONS[name]
    written = yaml.safe_load((CONFIGS / "config" / "jointssl" / "ablations" / f"{name}_{flavour}.yaml").read_text())
    assert written == {"defaults": [f"/config/jointssl/stage{stage}_{flavour}", "_self_"], "config": difference}


# --- for real

SEVERAL_RUNS = """
import json, shutil, sys
import vissl_jointssl.plugin
from vissl_jointssl.plugin.launch import main
import torch
if __name__ == "__main__":
    for overrides, folder in json.loads(sys.argv[1]):
        main(overrides)
        torch.distributed.destroy_process_group()
        if folder:
            shutil.rmtree(folder)  # a checkpoint takes 200 MB
"""


@pytest.fixture
def run_in_one_process(root: Path, tmp_path: Path) -> Callable[[list[tuple[list[str], str | None]]], str]:
    """Run several command lines one after the other, and remove the folders named beside them; the log."""

    def run(runs: list[tuple[list[str], str | None]]) -> str:
        program = tmp_path / "several_runs.py"
        program.write_text(f"import sys\nsys.path.insert(0, {str(root)!r})\n{SEVERAL_RUNS}")
        result = subprocess.run(
            [sys.executable, str(program), json.dumps(runs)],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
        return result.stdout

    return run


@pytest.fixture(scope="session")
def four_volumes(tiny_manifest: Path) -> Path:
    """Four volumes to train on and two to test on: one or two steps an epoch."""
    manifest = read_manifest(tiny_manifest)
    path = tiny_manifest.with_name("four.csv")
    train, test = manifest.select(splits=["train"]), manifest.select(splits=["test"])
    write_manifest(path, [*train[:4], *test])
    return path


@pytest.mark.slow
@pytest.mark.parametrize("group", sorted({str(Path(name).parent) for name in NAMES}))
def test_every_config_runs(
    group: str,
    four_volumes: Path,
    parent_of: Callable[[str], Path | None],
    run_in_one_process: Callable[..., str],
    tmp_path: Path,
) -> None:
    runs = []
    for name in NAMES:
        if str(Path(name).parent) == group:
            folder = tmp_path / name
            runs.append((tiny(name, four_volumes, folder, parent_of(name)), str(folder)))
    log = run_in_one_process(runs)
    assert log.count("All Done!") >= len(runs)


@pytest.mark.slow
def test_a_2d_baselines_checkpoint_is_evaluated_and_exported_like_a_stages(
    four_volumes: Path, run_in_one_process: Callable[..., str], tmp_path: Path
) -> None:
    weights = tmp_path / "simclr" / "model_final_checkpoint_phase0.torch"
    runs = [tiny("jointssl/baselines/simclr_slices", four_volumes, tmp_path / "simclr", None)]
    for name in ("linear_slice", "linear_volume"):
        runs.append(tiny(f"jointssl/{name}", four_volumes, tmp_path / name, weights))
    run_in_one_process([(overrides, None) for overrides in runs])
    for name in ("linear_slice", "linear_volume"):
        assert "test_accuracy_list_meter" in (tmp_path / name / "metrics.json").read_text()
    account = export_torchvision(weights, tmp_path / "f_intra.pth")
    assert len(account.matched) == 318
    for path in tmp_path.rglob("*.torch"):
        path.unlink()
