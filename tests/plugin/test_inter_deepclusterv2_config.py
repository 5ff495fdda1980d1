"""Stage 3's DeepCluster-v2 flavour before it starts: what is filled in, and which numbers of clusters can be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from vissl_jointssl.checkpoints import StageRecord
from vissl_jointssl.plugin.config import prepare
from vissl_jointssl.plugin.config_faults import ConfigError
from vissl_jointssl.plugin.inter_deepclusterv2_config import complete_inter_deepclusterv2

from vissl.config import AttrDict  # isort: skip - after the plugin has made VISSL importable

ConfigOf = Callable[..., AttrDict]
CLUSTERS = "config.LOSS.inter_deepclusterv2_loss.num_clusters"


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory, save_checkpoint: Callable[..., Path]) -> Path:
    """A checkpoint of this flavour's stage 1."""
    return save_checkpoint(tmp_path_factory.mktemp("parent"), StageRecord(stage=1, flavour="deepclusterv2"))


@pytest.fixture
def stage3(config_of: ConfigOf, parent: Path) -> Callable[..., AttrDict]:
    """Stage 3 straight from stage 1."""
    skip = "+config.JOINT_SSL.SKIP_STAGE_2=True"
    return lambda *overrides, **paths: config_of("stage3_deepclusterv2", skip, *overrides, parent=parent, **paths)


def test_the_loss_gets_views_width_and_seed(stage3: Callable[..., AttrDict]) -> None:
    config = prepare(stage3("config.SEED_VALUE=7"))
    loss = config.LOSS.inter_deepclusterv2_loss
    assert (loss.num_views, loss.embedding_width, loss.seed) == (2, 640, 7)
    assert "num_train_samples" in loss  # VISSL fills it in where it finds the key
    assert config.JOINT_SSL.RECORD["flavour"] == "deepclusterv2"


def test_a_projection_gives_the_loss_its_width(stage3: Callable[..., AttrDict]) -> None:
    heads = "config.MODEL.HEAD.PARAMS=[[mlp,{dims:[640,320],use_relu:True}],[mlp,{dims:[320,128]}]]"
    assert prepare(stage3(heads)).LOSS.inter_deepclusterv2_loss.embedding_width == 128


def test_the_papers_numbers_are_in_the_configs(config_of: ConfigOf, stage3: Callable[..., AttrDict]) -> None:
    one, three = config_of("stage1_deepclusterv2"), stage3()
    assert [config.OPTIMIZER.num_epochs for config in (one, three)] == [100, 100]
    assert [config.DATA.TRAIN.BATCHSIZE_PER_REPLICA * 4 for config in (one, three)] == [1024, 8]
    loss = three.LOSS.inter_deepclusterv2_loss
    assert (loss.temperature, loss.kmeans_iters, loss.num_clusters) == (0.1, 10, [4, 4, 4])
    assert one.LOSS.deepclusterv2_loss.num_clusters == [3000, 3000, 3000]
    assert three.MODEL.TEMP_FROZEN_PARAMS_ITER_MAP == []
    assert three.MODEL.GRAD_CLIP.MAX_NORM == 2.0
    warm_up, decay = three.OPTIMIZER.param_schedulers.lr.schedulers
    assert (warm_up["end_value"], decay["end_value"]) == (0.01, 0.0)


@pytest.mark.parametrize("ranks", [1, 3])
def test_more_clusters_than_volumes_are_answered_with_numbers_that_work(
    stage3: Callable[..., AttrDict], ranks: int
) -> None:
    on_ranks = (
        f"config.DISTRIBUTED.NUM_PROC_PER_NODE={ranks}"  # 3 * 2 volumes a step drop 2 of 8: they count all the same
    )
    with pytest.raises(ConfigError, match=r"asks for 3000 clusters of 8 volumes; at most 8 work") as caught:
        prepare(stage3(f"{CLUSTERS}=[3000,4]", on_ranks))
    advised = f"{CLUSTERS}=[8, 4]"
    assert f"for example {advised}" in str(caught.value)
    prepare(stage3(advised, on_ranks))


def test_a_limit_to_the_data_limits_the_clusters(stage3: Callable[..., AttrDict]) -> None:
    with pytest.raises(ConfigError, match=r"5 clusters of 4 volumes; at most 4 work"):
        prepare(stage3(f"{CLUSTERS}=[5]", "config.DATA.TRAIN.DATA_LIMIT=4"))


def test_stage_1s_clusters_are_held_against_what_one_rank_remembers(config_of: ConfigOf) -> None:
    # 47 slices on 3 ranks are 16 each, of which full batches of 5 leave 15.
    overrides = ["config.DISTRIBUTED.NUM_PROC_PER_NODE=3", "config.DATA.TRAIN.BATCHSIZE_PER_REPLICA=5"]
    clusters = "config.LOSS.deepclusterv2_loss.num_clusters"
    message = r"asks for 16 clusters of the 15 slices and images that one of 3 ranks remembers, of 47; at most 15 work"
    with pytest.raises(ConfigError, match=message) as caught:
        prepare(config_of("stage1_deepclusterv2", *overrides, f"{clusters}=[16,2,16]"))
    advised = f"{clusters}=[15, 2, 15]"
    assert f"for example {advised}" in str(caught.value)
    prepare(config_of("stage1_deepclusterv2", *overrides, advised))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (f"{CLUSTERS}=[]", "num_clusters is empty; give one number of clusters for each head"),
        (f"{CLUSTERS}=[4,0]", "num_clusters is [4, 0]; every head needs at least 1 cluster"),
        ("config.LOSS.inter_deepclusterv2_loss.memory_views=[2]", "memory_views is [2]; there are views 0 to 1, and"),
        ("config.LOSS.inter_deepclusterv2_loss.memory_views=[]", "views 0 to 1, and at least one must be remembered"),
        ("config.MODEL.HEAD.PARAMS=[[swav_head,{dims:[640]}]]", "takes mlp heads one after the other, or [[mlp"),
        ("config.MODEL.HEAD.PARAMS=[]", "HEAD.PARAMS is []; inter_deepclusterv2_loss takes mlp heads"),
        ("config.MODEL.HEAD.PARAMS=[[mlp,{dims:[64]}]]", "takes width 64, but is given 640"),
        ("config.DATA.TRAIN.TRANSFORMS=[]", "has 0 volume_views; stage 3 takes exactly one"),
        ("config.TEST_MODEL=True", "TEST_MODEL is True, but test volumes have no place in the memory"),
    ],
)
def test_each_fault_names_its_key(config_of: ConfigOf, override: str, message: str) -> None:
    (fault,) = complete_inter_deepclusterv2(config_of("stage3_deepclusterv2", override), width=640)
    assert message in fault


def test_names_of_options_and_parts_are_checked(stage3: Callable[..., AttrDict]) -> None:
    overrides = ["+config.LOSS.inter_deepclusterv2_loss.kmeans_iter=3", "config.LOSS.name=inter_swav_loss"]
    with pytest.raises(ConfigError, match=r"is read by nothing; did you mean kmeans_iters\?") as caught:
        prepare(stage3(*overrides))
    assert "stage 3 of flavour deepclusterv2 trains 'inter_deepclusterv2_loss'" in str(caught.value)


def test_an_unreadable_manifest_is_one_fault_and_not_two(stage3: Callable[..., AttrDict], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the config has 1 fault") as caught:
        prepare(stage3(f"{CLUSTERS}=[3000]", manifest=tmp_path / "absent.csv"))
    assert "absent.csv" in str(caught.value)
