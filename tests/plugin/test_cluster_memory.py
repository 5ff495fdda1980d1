"""The hook that fills and clusters stage 3's memory."""

from __future__ import annotations

import logging
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import Dataset

from vissl_jointssl.plugin.hooks import cluster_memory
from vissl_jointssl.plugin.hooks.cluster_memory import InterClusterMemoryHook, WholeSet, fill_memory
from vissl_jointssl.plugin.inter_deepclusterv2_loss import InterDeepClusterV2Loss

from vissl.config import AttrDict  # isort: skip - after the plugin has made VISSL importable

SAMPLES, WIDTH, BATCH = 7, 4, 2
OnTwoRanks = Callable[[Callable[[int], Any]], list[Any]]


class Vectors(Dataset):
    """Two views of seven vectors, in the form that VISSL's `multicrop_collator` takes."""

    cfg = AttrDict({"DATA": {"ENABLE_ASYNC_GPU_COPY": False}})

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> dict[str, list[Any]]:
        return {"data": list(vectors()[:, index]), "label": [index] * 2, "data_valid": [1] * 2, "data_idx": [index] * 2}


def vectors() -> Tensor:
    """All of them, (V, N, D)."""
    return torch.randn(2, SAMPLES, WIDTH, generator=torch.Generator().manual_seed(2))


class Model(nn.Module):
    """In VISSL's form: views in, a list of one tensor out; its statistics move with every pass, and it draws."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(WIDTH)
        self.spread = nn.Linear(WIDTH, WIDTH)
        self.drop = nn.Dropout(0.5)

    def forward(self, views: list[Tensor]) -> list[Tensor]:
        """Identity, but for the state it moves."""
        rows = torch.cat(views)
        self.drop(self.spread(self.norm(rows + 1)))
        return [rows]


def task_of(model: nn.Module | None = None, **changes: Any) -> SimpleNamespace:
    """What the hook needs of VISSL's task."""
    section = {"BATCHSIZE_PER_REPLICA": BATCH, "COLLATE_FUNCTION": "multicrop_collator", "COLLATE_FUNCTION_PARAMS": {}}
    section |= {"DROP_LAST": True, "USE_DEBUGGING_SAMPLER": False}
    config = {
        "DATA": {"TRAIN": section, "NUM_DATALOADER_WORKERS": 0, "PIN_MEMORY": False},
        "MULTI_PROCESSING_METHOD": "forkserver",
        "CHECKPOINT": {"CHECKPOINT_ITER_FREQUENCY": -1},
    }
    loss = InterDeepClusterV2Loss(
        temperature=0.1, num_clusters=[3, 2], kmeans_iters=3, memory_views=[0, 1], num_views=2, embedding_width=WIDTH,
        num_train_samples=SAMPLES, seed=1,
    )  # fmt: skip
    values = {
        "loss": loss, "model": Model() if model is None else model, "datasets": {"train": Vectors()},
        "device": torch.device("cpu"), "amp_type": None, "config": AttrDict(config), "train": True,
        "train_phase_idx": -1, "iteration": 0, "checkpoint_path": None,
    }  # fmt: skip
    return SimpleNamespace(**{**values, **changes})


def test_the_pass_at_the_start_knows_every_sample_though_epochs_drop_some() -> None:
    task = task_of()
    InterClusterMemoryHook().on_start(task)
    assert task.loss.memory.known.all()
    torch.testing.assert_close(task.loss.memory.embeddings, normalize(vectors(), dim=2))


def test_nothing_of_the_model_shows_that_the_pass_happened() -> None:
    task = task_of()
    before = {name: value.clone() for name, value in task.model.state_dict().items()}
    torch.manual_seed(4)
    drawn = torch.rand(3)
    torch.manual_seed(4)
    fill_memory(task)
    assert torch.equal(torch.rand(3), drawn)
    assert all(torch.equal(value, before[name]) for name, value in task.model.state_dict().items())
    assert all(parameter.grad is None for parameter in task.model.parameters())
    assert task.model.training


def test_each_epoch_is_clustered_once_and_says_how(caplog: pytest.LogCaptureFixture) -> None:
    task, hook = task_of(), InterClusterMemoryHook()
    with caplog.at_level(logging.INFO):
        hook.on_start(task)
        seen = []
        for epoch in range(2):
            task.train_phase_idx = epoch
            hook.on_phase_start(task)
            seen.append((int(task.loss.clustered_epoch), task.loss.centroids0.clone()))
    assert [epoch for epoch, _ in seen] == [0, 1]
    assert not torch.equal(seen[0][1], seen[1][1])
    assert "memory of 7 samples filled by one pass without training" in caplog.text
    assert "epoch 1: 3 clusters of" in caplog.text
    assert "0 empty; 2 clusters of" in caplog.text


class _SameVolumes(Model):
    """Every sample's second view has the embedding of its first, or the opposite one."""

    def __init__(self, sign: float) -> None:
        super().__init__()
        self.sign = sign

    def forward(self, views: list[Tensor]) -> list[Tensor]:
        """Embeddings of the first views, twice."""
        return [torch.cat([views[0], self.sign * views[0]])]


@pytest.mark.parametrize(("sign", "share", "warned"), [(1.0, "100%", False), (-1.0, "0%", True)])
def test_before_the_first_step_it_says_whether_volumes_are_told_apart(
    caplog: pytest.LogCaptureFixture, sign: float, share: str, warned: bool
) -> None:
    with caplog.at_level(logging.INFO):
        InterClusterMemoryHook().on_start(task_of(_SameVolumes(sign)))
    assert f"a volume is told from another one by its other view in {share}" in caplog.text
    warning = (
        "in 0% of comparisons over 7 volumes, chance gives 50% (limit 55%), so its cluster says how a view was drawn"
    )
    assert (f"{warning}; draw gentler views (DATA.TRAIN.TRANSFORMS)" in caplog.text) == warned
    assert ("hardly more alike" in caplog.text) == warned


def test_where_it_warns_is_the_configs_limit(caplog: pytest.LogCaptureFixture) -> None:
    InterClusterMemoryHook(least_recognition=0.0).on_start(task_of(_SameVolumes(-1.0)))
    assert "hardly more alike" not in caplog.text


def test_of_many_volumes_some_are_compared(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(cluster_memory, "_COMPARED", 3)
    InterClusterMemoryHook().on_start(task_of(_SameVolumes(-1.0)))
    assert "over 3 volumes" in caplog.text


def test_an_evaluation_phase_is_not_clustered() -> None:
    task, hook = task_of(), InterClusterMemoryHook()
    hook.on_start(task)
    task.train, task.train_phase_idx = False, 0
    hook.on_phase_start(task)
    assert int(task.loss.clustered_epoch) == -1


def test_a_resumed_run_takes_memory_and_clusters_from_its_checkpoint(caplog: pytest.LogCaptureFixture) -> None:
    first, hook = task_of(train_phase_idx=0), InterClusterMemoryHook()
    hook.on_start(first)
    hook.on_phase_start(first)
    resumed = task_of(model=nn.Identity(), train_phase_idx=0, checkpoint_path="runs/model_iteration3.torch")
    resumed.loss.load_state_dict(first.loss.state_dict())
    resumed.loss.memory.embeddings.mul_(-1)  # moved within the epoch: its clusters must stay
    with caplog.at_level(logging.INFO):
        hook.on_start(resumed)
        hook.on_phase_start(resumed)
    assert "memory of 7 samples restored from runs/model_iteration3.torch, on every rank" in caplog.text
    assert "epoch 0 goes on with the clusters of its checkpoint" in caplog.text
    assert torch.equal(resumed.loss.centroids0, first.loss.centroids0)
    resumed.train_phase_idx = 1
    hook.on_phase_start(resumed)
    assert not torch.equal(resumed.loss.centroids0, first.loss.centroids0)


@pytest.mark.parametrize(("moment", "iteration", "exchanged"), [
    ("on_phase_end", 1, True), ("on_step", 4, True), ("on_step", 5, False),
])  # fmt: skip
def test_ranks_exchange_before_every_checkpoint(moment: str, iteration: int, exchanged: bool) -> None:
    task = task_of(iteration=iteration)
    task.config.CHECKPOINT.CHECKPOINT_ITER_FREQUENCY = 2
    task.loss.remember(torch.ones(4, WIDTH), torch.tensor([3, 5, 3, 5]))
    getattr(InterClusterMemoryHook(), moment)(task)
    assert task.loss.memory.fresh.any() != exchanged


def test_without_checkpoints_within_an_epoch_no_step_exchanges() -> None:
    task = task_of(iteration=4)
    task.loss.remember(torch.ones(4, WIDTH), torch.tensor([3, 5, 3, 5]))
    InterClusterMemoryHook().on_step(task)
    assert task.loss.memory.fresh.any()


@pytest.mark.parametrize("samples", [1, 5, 6, 8])
def test_the_passs_sampler_gives_full_batches_of_everything(samples: int) -> None:
    indices = list(WholeSet(samples, 3, seed=0))
    assert len(indices) == len(WholeSet(samples, 3, seed=0)) == 3 * -(-samples // 3)
    assert set(indices) == set(range(samples))
    assert samples < 4 or indices[:samples] != sorted(indices[:samples])


def test_two_ranks_step_through_the_batches_of_one(on_two_ranks: OnTwoRanks) -> None:
    alone = np.array(list(WholeSet(10, 4, seed=3))).reshape(3, 4)
    ranks = [np.array(one).reshape(3, 2) for one in on_two_ranks(lambda _: list(WholeSet(10, 2, seed=3)))]
    np.testing.assert_array_equal(np.concatenate(ranks, axis=1), alone)


def test_two_ranks_fill_one_memory_and_give_every_sample_the_clusters_of_one_rank(on_two_ranks: OnTwoRanks) -> None:
    alone, hook = task_of(train_phase_idx=0), InterClusterMemoryHook()
    hook.on_start(alone)
    hook.on_phase_start(alone)

    def start(_: int) -> dict[str, np.ndarray]:
        task = task_of(DistributedDataParallel(Model()), train_phase_idx=0)
        hook.on_start(task)
        hook.on_phase_start(task)
        return {name: value.numpy() for name, value in task.loss.state_dict().items()}

    wanted = alone.loss.state_dict()
    for found in on_two_ranks(start):
        for name, value in found.items():
            np.testing.assert_allclose(value, wanted[name], atol=1e-6, err_msg=name)


class _BrokenModel(Model):
    """One sample's embedding is infinite, whatever is drawn."""

    def forward(self, views: list[Tensor]) -> list[Tensor]:
        (rows,) = super().forward(views)
        bad = (rows == vectors()[0, 4]).all(dim=1) | (rows == vectors()[1, 4]).all(dim=1)
        return [torch.where(bad[:, None], torch.inf, rows)]


def test_an_embedding_that_is_not_finite_stops_every_rank_before_the_first_step(on_two_ranks: OnTwoRanks) -> None:
    def said_on(rank: int) -> str:
        task = task_of(_BrokenModel())
        task.datasets["train"].data_objs = [object()]
        with pytest.raises(FloatingPointError) as error:
            fill_memory(task)
        return str(error.value)

    first, second = on_two_ranks(said_on)
    assert first == second
    assert first.startswith("embeddings of 1 samples are NaN or infinite before the first step: sample 4; look at them")
