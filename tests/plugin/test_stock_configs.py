"""Stock configs compose through our launcher, from any working directory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from vissl_jointssl.plugin.launch import compose, config_names
from vissl_jointssl.plugin.search_path import our_configs, stock_configs

# isort: split
from vissl.utils.hydra_config import convert_to_attrdict

SAMPLE = [
    "pretrain/swav/swav_8node_resnet",
    "pretrain/deepcluster_v2/deepclusterv2_2crops_resnet",
    "pretrain/simclr/simclr_8node_resnet",
    "pretrain/moco/moco_1node_resnet",
    "pretrain/barlow_twins/barlow_twins_4node_resnet",
    "test/integration_test/quick_swav",
    "test/integration_test/quick_eval_in1k_linear",
    "test/cpu_test/test_cpu_resnet_simclr",
    "benchmark/linear_image_classification/imagenet1k/eval_resnet_8gpu_transfer_in1k_linear",
    "benchmark/fulltune/imagenet1k/eval_resnet_8gpu_transfer_in1k_fulltune",
    "feature_extraction/extract_resnet_in1k_8gpu",
    "extract_cluster/swav/visualise_swav_resnet_in1k_8gpu",
]


def main_configs() -> list[str]:
    """Names of the stock configs that stand alone: they bring data and a model."""
    folder = stock_configs() / "config"
    names = []
    for path in sorted(folder.rglob("*.yaml")):
        if "object_detection" in path.parts:
            continue  # detectron2's own format, with keys twice; VISSL never composes them
        content = (yaml.safe_load(path.read_text()) or {}).get("config") or {}
        if {"DATA", "MODEL"} <= content.keys():
            names.append(path.relative_to(folder).with_suffix("").as_posix())
    return names


@pytest.fixture
def without_network(monkeypatch):
    """Weights that a stock config names by URL are not fetched."""
    monkeypatch.setattr("vissl.utils.io.cache_url", lambda url, cache_dir: url)


def assert_composes(name: str) -> None:
    """The config keeps what its YAML says, and VISSL's own inference has nothing against it."""
    top, config = convert_to_attrdict(compose([f"config={name}"]), dump_config=False)
    assert top.engine_name in ("train", "extract_features", "extract_cluster"), name
    stock = yaml.safe_load((stock_configs() / "config" / f"{name}.yaml").read_text())["config"]
    for split, of_split in stock["DATA"].items():
        if isinstance(of_split, dict) and "DATA_SOURCES" in of_split:
            assert of_split["DATA_SOURCES"] == config.DATA[split].DATA_SOURCES, name
    assert stock["MODEL"].get("TRUNK", {}).get("NAME", config.MODEL.TRUNK.NAME) == config.MODEL.TRUNK.NAME, name


@pytest.mark.parametrize("name", SAMPLE)
def test_a_stock_config_composes_from_a_strange_folder(name, tmp_path, monkeypatch, without_network):
    monkeypatch.chdir(tmp_path)
    assert_composes(name)


@pytest.mark.slow
def test_every_main_config_of_vissl_composes(tmp_path, monkeypatch, without_network):
    monkeypatch.chdir(tmp_path)
    names = main_configs()
    assert len(names) == 224
    for name in names:
        assert_composes(name)


def test_all_stock_names_are_known_and_ours_beside_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = config_names()
    assert set(SAMPLE) <= set(names)
    ours = our_configs() / "config"
    assert {path.relative_to(ours).with_suffix("").as_posix() for path in ours.rglob("*.yaml")} <= set(names)


def test_overrides_win_over_the_named_config():
    config = compose(["config=test/integration_test/quick_swav", "config.SEED_VALUE=5", "+config.MINE.KEY=1"]).config
    assert (config.SEED_VALUE, config.MINE.KEY) == (5, 1)
    assert config.LOSS.name == "swav_loss"


def test_a_config_of_the_working_directory_is_found_and_hides_no_stock_one(tmp_path, monkeypatch):
    own = tmp_path / "configs/config/mine"
    own.mkdir(parents=True)
    (own / "run.yaml").write_text("# @package _global_\nconfig:\n  SEED_VALUE: 41\n")
    monkeypatch.chdir(tmp_path)
    assert compose(["config=mine/run"]).config.SEED_VALUE == 41
    assert compose(["config=test/integration_test/quick_swav"]).config.LOSS.name == "swav_loss"


def test_a_python_package_called_configs_hides_no_stock_config(tmp_path, root):
    package = tmp_path / "configs"
    package.mkdir()
    (package / "__init__.py").touch()
    # An unknown key: composing ends there, after the stock config was found and before anything runs. Started by
    # module name, the working directory is the first place that Python imports from.
    result = subprocess.run(
        [sys.executable, "-m", "vissl_jointssl.plugin.launch", f"config={SAMPLE[0]}", "config.NO_SUCH_KEY=1"],
        env={**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert "Could not override 'config.NO_SUCH_KEY'" in result.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("wanted", "near"),
    [
        ("pretrain/swav/swav_8nodes_resnet", "pretrain/swav/swav_8node_resnet"),
        ("quick_swav", "test/integration_test/quick_swav"),
        ("pretrain/simclr/simclr_8node", "pretrain/simclr/simclr_8node_"),
    ],
)
def test_an_unknown_config_is_answered_with_the_nearest_names(wanted, near):
    with pytest.raises(ValueError, match=f"config '{wanted}' does not exist; did you mean .*{near}"):
        compose([f"config={wanted}"])


def test_an_unknown_name_that_is_near_nothing_says_where_the_names_are():
    with pytest.raises(ValueError, match="does not exist; see configs/config for the names"):
        compose(["config=zzzzzzzz"])


def test_no_config_at_all_is_answered_with_an_example():
    with pytest.raises(ValueError, match=r"no config is named in \[\]; say for example config=pretrain"):
        compose([])


def test_stock_configs_are_vissls_and_not_ours():
    assert stock_configs() != our_configs()
    assert (stock_configs() / "config/pretrain/swav/swav_8node_resnet.yaml").is_file()
    assert not (our_configs() / "__init__.py").exists()
    assert Path(our_configs()).is_absolute()
