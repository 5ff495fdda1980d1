"""Queues and memories shared out among another number of ranks."""

from __future__ import annotations

from itertools import chain

import pytest
import torch
from torch import Tensor

from vissl_jointssl.objectives.embedding_queue import EmbeddingQueue
from vissl_jointssl.plugin.resharding import Place, reshard_loss, share_memory, share_queue

WIDTH, BATCH = 2, 2


def step_of(ranks: int, step: int) -> list[Tensor]:
    """Each rank's batch of embeddings ``(1, B, D)``, marked with (step, rank * B + row)."""
    return [
        torch.stack([torch.full((BATCH,), float(step)), torch.arange(BATCH) + rank * BATCH], dim=1)[None]
        for rank in range(ranks)
    ]


def queues_after(ranks: int, steps: int, length: int) -> list[EmbeddingQueue]:
    """What ranks remember after some steps."""
    queues = [EmbeddingQueue(1, length, WIDTH) for _ in range(ranks)]
    for step in range(steps):
        for queue, batch in zip(queues, step_of(ranks, step), strict=True):
            queue.update(batch)
    return queues


def rows(queue: Tensor) -> list[tuple[float, ...]]:
    """Of ``(1, n, D)``, as something that compares."""
    return [tuple(row) for row in queue[0].tolist()]


@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_a_shared_out_queue_keeps_every_row_once_and_newest_first(world: int) -> None:
    old = [queue.stored for queue in queues_after(ranks=2, steps=6, length=12)]
    shares = [share_queue(old, Place(rank, world)) for rank in range(world)]
    found = [rows(share) for share in shares]
    assert sorted(chain(*found)) == sorted(chain(*map(rows, old)))
    for share in found:
        steps = [step for step, _ in share]
        assert steps == sorted(steps, reverse=True)
        assert set(steps) == set(range(6))  # each has old and new ones


def test_one_rank_and_back_is_the_same_set_of_rows_at_each_age() -> None:
    old = [queue.stored for queue in queues_after(ranks=2, steps=6, length=12)]
    one = share_queue(old, Place(0, 1))
    back = [share_queue([one], Place(rank, 2)) for rank in range(2)]
    for age in range(0, 12, BATCH):
        then = [set(rows(queue[:, age : age + BATCH])) for queue in old]
        now = [set(rows(queue[:, age : age + BATCH])) for queue in back]
        assert set.union(*then) == set.union(*now)


@pytest.mark.parametrize("steps", [2, 6])
def test_our_loss_knows_how_full_its_new_queue_is(steps: int) -> None:
    def state(queue: EmbeddingQueue) -> dict[str, Tensor]:
        return {f"queue.{name}": value for name, value in queue.state_dict().items()} | {
            "num_steps": torch.tensor(steps)
        }

    old = [state(queue) for queue in queues_after(ranks=2, steps=steps, length=8)]
    fresh = state(EmbeddingQueue(1, 8, WIDTH)) | {"num_steps": torch.tensor(0)}
    one = reshard_loss(old, fresh, [0, 0], Place(0, 1))
    assert int(one["num_steps"]) == steps
    assert int(one["queue.filled"]) == min(8, 2 * BATCH * steps)
    newest = rows(one["queue.stored"][:, : 2 * BATCH])
    assert set(newest) == set(chain(*(rows(batch) for batch in step_of(2, steps - 1))))

    four = [reshard_loss(old, fresh, [0, 0], Place(rank, 4)) for rank in range(4)]
    assert [int(each["queue.filled"]) for each in four] == [min(8, BATCH * steps) * 2 // 4] * 4
    for each in four:
        filled = int(each["queue.filled"])
        assert not each["queue.stored"][:, filled:].any()
        assert each["queue.stored"].shape == fresh["queue.stored"].shape


def test_vissls_queue_keeps_its_random_rows_where_nothing_is_remembered() -> None:
    names = ("swav_criterion.local_emb_queue", "swav_criterion.local_queue0")
    old = [{name: torch.full((2, 4, 3), float(rank)) for name in names} for rank in range(2)]
    fresh = {name: torch.full((2, 5, 3), 9.0) for name in names}
    for rank in range(2):
        mine = reshard_loss(old, fresh, [0, 0], Place(rank, 2))
        for name in names:
            assert mine[name][:, :4].unique().tolist() == [float(rank)]
            assert mine[name][:, 4:].unique().tolist() == [9.0]
    shorter = {name: torch.zeros(2, 3, 3) for name in names}
    assert reshard_loss(old, shorter, [0, 0], Place(0, 1))[names[0]][:, :, 0].tolist() == [[0, 1, 0]] * 2


def memory_of(indices: list[int], mark: float) -> tuple[Tensor, Tensor]:
    """One bank, whose embedding of sample i is (i, mark)."""
    index = torch.tensor(indices)
    return torch.stack([index.float(), torch.full((len(indices),), mark)], dim=1)[None], index


@pytest.mark.parametrize("world", [1, 2, 3])
def test_a_shared_out_memory_knows_every_sample_and_writes_on_behind_what_is_renewed(world: int) -> None:
    old = [memory_of([4, 1, 7, 2, 8, 5], 0.0), memory_of([0, 3, 6, 9, 11, 10], 1.0)]
    renewed = 2 * 3  # three rows of each rank
    shares = [share_memory(old, [3, 3], 12 // world, Place(rank, world)) for rank in range(world)]
    assert sorted(chain(*(index.tolist() for _, index in shares))) == list(range(12))
    for banks, index in shares:
        assert torch.equal(banks[0, :, 0].long(), index)
        assert set(index[: renewed // world].tolist()) <= {4, 1, 7, 0, 3, 6}


def test_a_sample_that_two_ranks_remember_is_kept_as_renewed_last() -> None:
    old = [memory_of([2, 0, 1], 0.0), memory_of([3, 1, 0], 1.0)]
    banks, index = share_memory(old, [1, 2], 4, Place(0, 1))
    assert index.tolist() == [2, 3, 1, 0]  # 1 as rank 1 has renewed it; 0, renewed by nobody, as rank 0 has it
    assert banks[0, :, 1].tolist() == [0, 1, 1, 0]


def test_rows_that_are_left_over_repeat_a_sample_and_name_no_other() -> None:
    old = [memory_of([2, 1], 0.0)]
    _, index = share_memory(old, [2], 5, Place(0, 1))
    assert index.tolist() == [2, 1, 2, 1, 2]


def test_vissls_memory_is_found_by_its_names_and_the_rest_is_rank_0s() -> None:
    def state(indices: list[int], mark: float) -> dict[str, Tensor]:
        banks, index = memory_of(indices, mark)
        return {"local_memory_embeddings": banks, "local_memory_index": index, "assignments": torch.tensor([mark])}

    mine = reshard_loss([state([0, 1], 0), state([2, 3], 1)], state([0, 0, 0, 0], 5), [2, 2], Place(0, 1))
    assert sorted(mine["local_memory_index"].tolist()) == [0, 1, 2, 3]
    assert mine["assignments"].tolist() == [0]
