"""The adapter of stage 3's DeepCluster-v2 loss: VISSL's own as oracle, ranks, checkpoints, half precision."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize
from torch.nn.parallel import DistributedDataParallel

from vissl_jointssl.objectives.spherical_kmeans import spherical_kmeans
from vissl_jointssl.plugin.inter_deepclusterv2_loss import InterDeepClusterV2Loss

from classy_vision.losses import build_loss  # isort: skip - after the plugin has made VISSL importable
from vissl.config import AttrDict  # isort: skip
from vissl.losses.deepclusterv2_loss import DeepClusterV2Loss  # isort: skip

VIEWS, VOLUMES, WIDTH = 2, 12, 6
OPTIONS: dict[str, Any] = {
    "temperature": 0.1,
    "num_clusters": [4, 3, 2],
    "kmeans_iters": 4,
    "memory_views": [0, 1],
    "num_views": VIEWS,
    "embedding_width": WIDTH,
    "num_train_samples": VOLUMES,
    "seed": 5,
}
OnTwoRanks = Callable[[Callable[[int], Any]], list[Any]]


def embeddings(volumes: int = VOLUMES, seed: int = 0) -> Tensor:
    """What a model gives for two views, view-major, in float64 and not normalised."""
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(VIEWS * volumes, WIDTH, generator=generator, dtype=torch.float64)


def indices(volumes: list[int]) -> Tensor:
    """VISSL's target: the sample index of each row, view-major."""
    return torch.tensor(volumes).repeat(VIEWS)


def clustered(epoch: int = 0, **options: Any) -> InterDeepClusterV2Loss:
    """A loss that has seen every volume."""
    loss = InterDeepClusterV2Loss(**{**OPTIONS, **options}).double()
    loss.remember(normalize(embeddings(), dim=1), indices(list(range(VOLUMES))))
    loss.cluster(epoch)
    return loss


@pytest.mark.usefixtures("one_gloo_rank")
def test_given_the_same_clusters_it_is_vissls_loss() -> None:
    config = {
        "num_train_samples": VOLUMES,
        "DROP_LAST": False,
        "BATCHSIZE_PER_REPLICA": 4,
        "num_crops": VIEWS,
        "temperature": 0.1,
        "num_clusters": [4, 3, 2],
        "kmeans_iters": 4,
        "memory_params": {"crops_for_mb": [0, 1], "embedding_dim": WIDTH},
    }
    ours, theirs = clustered(), DeepClusterV2Loss(AttrDict(config)).double()
    for name in ("centroids0", "centroids1", "centroids2", "assignments"):
        getattr(theirs, name).copy_(getattr(ours, name))
    output, target = embeddings(4, seed=1).requires_grad_(), indices([7, 2, 11, 0])
    values = [loss(output, target) for loss in (ours, theirs)]
    gradients = [torch.autograd.grad(value, output)[0] for value in values]
    torch.testing.assert_close(values[0], values[1])
    torch.testing.assert_close(gradients[0], gradients[1])
    # and it remembers the same: bank i holds view i
    torch.testing.assert_close(ours.memory.embeddings[:, [7, 2, 11, 0]], theirs.local_memory_embeddings[:, :4])


def test_a_head_is_clustered_from_the_view_of_its_turn() -> None:
    loss = clustered()
    for head, view in enumerate([0, 1, 0]):
        seed = int(np.random.SeedSequence((5, 0, head)).generate_state(1)[0])
        centroids, assignments = spherical_kmeans(loss.memory.embeddings[view], OPTIONS["num_clusters"][head], 4, seed)
        assert torch.equal(loss.centroids(head), centroids)
        assert torch.equal(loss.assignments[head], assignments)


def test_the_clustering_depends_on_seed_and_epoch_alone() -> None:
    torch.manual_seed(0)
    first = clustered(epoch=3)
    torch.manual_seed(1)
    assert torch.equal(clustered(epoch=3).centroids0, first.centroids0)
    assert not torch.allclose(clustered(epoch=4).centroids0, first.centroids0)
    assert not torch.allclose(clustered(epoch=3, seed=6).centroids0, first.centroids0)


def test_it_is_made_from_its_section_of_the_config() -> None:
    made = build_loss(AttrDict({**OPTIONS, "name": "inter_deepclusterv2_loss"}))
    assert isinstance(made, InterDeepClusterV2Loss)
    assert [len(made.centroids(head)) for head in range(3)] == [4, 3, 2]


def test_the_centroids_stay_and_the_memory_moves_with_each_batch() -> None:
    loss = clustered()
    before = copy.deepcopy(loss.state_dict())
    output = embeddings(2, seed=3)
    loss(output, indices([4, 9]))
    moved = {name for name, value in loss.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {"memory.embeddings"}
    expected = normalize(output, dim=1).view(VIEWS, 2, WIDTH)
    torch.testing.assert_close(loss.memory.embeddings[:, [4, 9]], expected)


def test_an_evaluation_does_not_feed_the_memory() -> None:
    loss = clustered().eval()
    before = loss.memory.embeddings.clone()
    loss(embeddings(2, seed=3), indices([4, 9]))
    assert torch.equal(loss.memory.embeddings, before)


def test_predictions_are_kept_for_whoever_watches() -> None:
    loss = clustered()
    loss(embeddings(3), indices([0, 1, 2]))
    assert loss.last_predictions is not None
    assert loss.last_predictions.shape == (VIEWS, 3, 4)
    torch.testing.assert_close(loss.last_predictions.sum(dim=2), torch.ones(VIEWS, 3, dtype=torch.float64))


def test_all_its_state_follows_the_device() -> None:
    loss = InterDeepClusterV2Loss(**OPTIONS).to("meta")
    assert {buffer.device.type for buffer in loss.buffers()} == {"meta"}


def test_half_precision_outputs_are_scored_in_float32() -> None:
    loss = clustered().float()
    output, target = embeddings(4).bfloat16(), indices([0, 1, 2, 3])
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(output, target)
    assert value.dtype == torch.float32
    assert torch.equal(value, loss(output.float(), target))


def test_a_volume_that_nobody_has_seen_stops_the_clustering() -> None:
    loss = InterDeepClusterV2Loss(**OPTIONS).double()
    loss.remember(normalize(embeddings(10), dim=1), indices(list(range(10))))
    with pytest.raises(RuntimeError, match=r"2 of 12 samples are not in memory, first \[10, 11\]"):
        loss.cluster(0)


def test_a_checkpoint_of_other_data_is_refused() -> None:
    with pytest.raises(ValueError, match=r"remembers 12 samples and the data set has 9.*empty config\.CHECKPOINT\.DIR"):
        InterDeepClusterV2Loss(**{**OPTIONS, "num_train_samples": 9}).load_state_dict(clustered().state_dict())


# --- two ranks


def model() -> nn.Module:
    """A small one, the same on every rank."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(WIDTH, 8), nn.Tanh(), nn.Linear(8, WIDTH)).double()


def train(network: nn.Module, loss: InterDeepClusterV2Loss, batches: list[list[int]]) -> tuple[float, list[np.ndarray]]:
    """Two epochs, each clustered first, without updates; the last step's loss, and the gradients of all."""
    inputs = embeddings(seed=8).view(VIEWS, VOLUMES, WIDTH)
    value = torch.zeros(())
    for epoch in range(2):
        loss.cluster(epoch)
        for batch in batches:
            value = loss(network(inputs[:, batch].flatten(0, 1) * (epoch + 1)), indices(batch))
            value.backward()
    return value.item(), [parameter.grad.numpy() for parameter in network.parameters()]


def test_two_ranks_with_half_batches_equal_one_rank_with_whole_ones(on_two_ranks: OnTwoRanks) -> None:
    whole = [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    alone = clustered()
    value, gradients = train(model(), alone, whole)

    def rank_of(rank: int) -> tuple[float, list[np.ndarray], dict[str, np.ndarray]]:
        loss = InterDeepClusterV2Loss(**OPTIONS).double()
        own = [*range(rank, VOLUMES, 2)]
        rows = normalize(embeddings(), dim=1).view(VIEWS, VOLUMES, WIDTH)[:, own]
        loss.remember(rows.flatten(0, 1), indices(own))
        found = train(DistributedDataParallel(model()), loss, [batch[2 * rank : 2 * rank + 2] for batch in whole])
        return *found, {name: buffer.numpy() for name, buffer in loss.named_buffers() if "memory" not in name}

    ranks = on_two_ranks(rank_of)
    assert np.mean([rank[0] for rank in ranks]) == pytest.approx(value, abs=1e-12)
    for rank in ranks:
        for found, wanted in zip(rank[1], gradients, strict=True):
            np.testing.assert_allclose(found, wanted, atol=1e-12)
        for name, found in rank[2].items():
            np.testing.assert_allclose(found, alone.state_dict()[name], atol=1e-12, err_msg=name)


def test_what_rank_0_saves_gives_both_ranks_every_assignment_of_a_fresh_clustering(on_two_ranks: OnTwoRanks) -> None:
    def save(rank: int) -> bytes:
        loss = InterDeepClusterV2Loss(**OPTIONS).double()
        own = [*range(rank, VOLUMES, 2)]
        rows = normalize(embeddings(), dim=1).view(VIEWS, VOLUMES, WIDTH)[:, own]
        loss.remember(rows.flatten(0, 1), indices(own))
        loss.memory.exchange()
        file = io.BytesIO()
        torch.save(loss.state_dict(), file)
        return file.getvalue()

    of_rank_0 = on_two_ranks(save)[0]

    def resume(_: int) -> np.ndarray:
        loss = InterDeepClusterV2Loss(**OPTIONS).double()
        loss.load_state_dict(torch.load(io.BytesIO(of_rank_0)))
        loss.cluster(1)
        return loss.assignments.numpy()

    fresh = clustered(epoch=1).assignments.numpy()
    assert (fresh >= 0).all()
    for assignments in on_two_ranks(resume):
        np.testing.assert_array_equal(assignments, fresh)
