"""Feature and cluster extraction write what VISSL's own engines write, on any device and number of ranks."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from vissl_jointssl.plugin import extraction

# isort: split
from vissl.config import AttrDict
from vissl.trainer.trainer_main import SelfSupervisionTrainer
from vissl.utils import distributed_utils
from vissl.utils.extract_features_utils import ExtractedFeaturesLoader


class _Model(nn.Module):
    """Two features of an image: its mean per channel, and all of it; or scores for three clusters."""

    def __init__(self, clusters=False):
        super().__init__()
        self.clusters = clusters
        self.trained = True

    def forward(self, images):
        self.trained = self.training
        means = images.mean(dim=(2, 3))
        return [[means, means @ torch.eye(3)]] if self.clusters else [means, images]

    def is_clustering_model(self):
        return self.clusters


def _batches(indices, size=3):
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(20, 3, 2, 2, generator=generator)
    for start in range(0, len(indices), size):
        rows = torch.tensor(indices[start : start + size])
        yield {"data": [images[rows]], "label": [rows % 2], "data_idx": [rows]}


def _trainer(indices, threshold=-1, clusters=False, feature_names=("means", "all")):
    pool_ops = [[name, ["Identity", []]] for name in feature_names]
    evaluation = {
        "EVAL_MODE_ON": True,
        "FREEZE_TRUNK_ONLY": True,
        "LINEAR_EVAL_FEAT_POOL_OPS_MAP": pool_ops,
        "EXTRACT_TRUNK_FEATURES_ONLY": True,
    }
    config = {
        "DATA": {"PIN_MEMORY": False},
        "MODEL": {"FEATURE_EVAL_SETTINGS": evaluation, "HEAD": {"PARAMS": [["mlp", {}]]}},
        "EXTRACT_FEATURES": {"CHUNK_THRESHOLD": threshold},
    }
    task = SimpleNamespace(
        available_splits=["TRAIN"],
        dataloaders={"train": list(_batches(indices))},
        device=torch.device("cpu"),
        base_model=_Model(clusters),
        prepare_extraction=lambda pin_memory: None,
        init_distributed_data_parallel_model=lambda: None,
    )
    task.model = task.base_model
    return SimpleNamespace(cfg=AttrDict(config), task=task, _add_dummy_layer=lambda: None, _cleanup_task=lambda: None)


def test_the_stock_engines_use_the_replacements():
    assert SelfSupervisionTrainer.extract is extraction.extract
    assert SelfSupervisionTrainer.extract_clusters is extraction.extract_clusters
    assert distributed_utils.all_gather_sizes is extraction.all_gather_sizes
    assert distributed_utils.all_gather_heterogeneous is extraction.all_gather_heterogeneous


@pytest.mark.parametrize(("threshold", "chunks"), [(-1, 1), (0, 3), (5, 2), (6, 2), (100, 1)])
def test_features_are_read_back_by_vissls_loader_however_they_are_cut(tmp_path, threshold, chunks):
    order = [4, 1, 7, 0, 2, 6, 5, 3]  # 3 batches of 3, 3 and 2 images
    trainer = _trainer(order, threshold)
    extraction.extract(trainer, str(tmp_path))
    files = sorted(path.name for path in tmp_path.glob("*_means_features.npy"))

    assert files == [f"rank0_chunk{chunk}_train_means_features.npy" for chunk in range(chunks)]
    loaded = ExtractedFeaturesLoader.load_features(str(tmp_path), "train", "all")
    images = torch.cat([batch["data"][0] for batch in _batches(list(range(8)))])
    np.testing.assert_array_equal(loaded["features"], images.numpy())
    assert loaded["inds"].tolist() == list(range(8))
    assert loaded["targets"].shape == (8, 1)
    assert loaded["targets"][:, 0].tolist() == [index % 2 for index in range(8)]
    assert not trainer.task.base_model.trained


def test_an_image_that_a_padded_shard_repeats_is_kept_once(tmp_path):
    extraction.extract(_trainer([2, 0, 1, 2]), str(tmp_path))
    assert np.load(tmp_path / "rank0_chunk0_train_means_inds.npy").tolist() == [0, 1, 2]


def test_a_model_with_fewer_features_than_names_is_refused(tmp_path):
    trainer = _trainer([0, 1], feature_names=("a", "b", "c"))
    with pytest.raises(ValueError, match=r"gives 2 features, but .*POOL_OPS_MAP names 3: \['a', 'b', 'c'\]"):
        extraction.extract(trainer, str(tmp_path))


def test_every_image_gets_its_highest_scoring_cluster(one_gloo_rank):
    clusters = extraction.extract_clusters(_trainer([3, 1, 0, 2], clusters=True))
    images = torch.cat([batch["data"][0] for batch in _batches(list(range(4)))])
    expected = {index: int(np.argmax(image.mean(dim=(1, 2)))) for index, image in enumerate(images)}
    assert clusters == {"TRAIN": expected}


def test_a_model_without_prototypes_is_refused():
    with pytest.raises(ValueError, match=r"has no prototypes .* needs a model with a swav_head"):
        extraction.extract_clusters(_trainer([0]))


def _clusters_on_rank(rank):
    return extraction.extract_clusters(_trainer([0, 1, 2, 3, 4] if rank == 0 else [5, 6, 7], clusters=True))


def test_two_ranks_with_unequal_shards_agree_on_all_clusters(on_two_ranks):
    both = on_two_ranks(_clusters_on_rank)
    assert both[0] == both[1]
    assert sorted(both[0]["TRAIN"]) == list(range(8))


def _gather_on_rank(rank):
    rows = torch.arange(3 + 2 * rank).unsqueeze(1) + 10 * rank
    sizes = extraction.all_gather_sizes(rows)
    return sizes, [gathered.tolist() for gathered in extraction.all_gather_heterogeneous(sizes, rows)]


def test_rows_of_unequal_ranks_arrive_whole_and_in_order(on_two_ranks):
    for sizes, rows in on_two_ranks(_gather_on_rank):
        assert sizes == [3, 5]
        assert rows == [[[0], [1], [2]], [[10], [11], [12], [13], [14]]]
