"""The memory of embeddings: what was put in comes out, and ranks end up with the same."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from vissl_jointssl.objectives.embedding_memory import EmbeddingMemory


def embeddings(banks: int, samples: int, width: int = 3, seed: int = 0) -> torch.Tensor:
    """Random ones."""
    return torch.randn(banks, samples, width, generator=torch.Generator().manual_seed(seed))


def test_the_newest_embedding_of_each_sample_is_kept() -> None:
    memory = EmbeddingMemory(2, 5, 3)
    first, second = embeddings(2, 3), embeddings(2, 2, seed=1)
    memory.update(torch.tensor([4, 0, 2]), first)
    memory.update(torch.tensor([2, 3]), second)
    memory.exchange()
    assert memory.known.tolist() == [True, False, True, True, True]
    torch.testing.assert_close(memory.embeddings[:, [4, 0]], first[:, :2])
    torch.testing.assert_close(memory.embeddings[:, [2, 3]], second)
    assert memory.embeddings[:, 1].eq(0).all()


def test_on_one_rank_the_share_is_everything() -> None:
    memory = EmbeddingMemory(2, 5, 3)
    memory.update(torch.arange(5), embeddings(2, 5))
    assert torch.equal(memory.share(1), memory.embeddings[1])


def test_no_gradient_is_kept() -> None:
    memory = EmbeddingMemory(1, 2, 3)
    memory.update(torch.arange(2), embeddings(1, 2).requires_grad_())
    assert not memory.embeddings.requires_grad


def test_a_saved_memory_is_whole_and_has_nothing_left_to_exchange() -> None:
    memory, loaded = EmbeddingMemory(1, 4, 3), EmbeddingMemory(1, 4, 3)
    memory.update(torch.arange(4), embeddings(1, 4))
    memory.exchange()
    assert not memory.fresh.any()
    loaded.load_state_dict(memory.state_dict())
    assert loaded.known.all()
    assert torch.equal(loaded.embeddings, memory.embeddings)


def test_two_ranks_exchange_what_each_has_seen(on_two_ranks: Callable[[Callable[[int], object]], list]) -> None:
    seen = ([0, 3, 1], [1, 4, 2])  # sample 1 by both
    given = [embeddings(2, 3, seed=rank) for rank in range(2)]

    def fill(rank: int) -> tuple[np.ndarray, ...]:
        memory = EmbeddingMemory(2, 7, 3)
        memory.update(torch.arange(7), torch.full((2, 7, 3), 9.0))
        memory.exchange()
        memory.update(torch.tensor(seen[rank]), given[rank])
        memory.exchange()
        return memory.embeddings.numpy(), memory.known.numpy(), memory.fresh.numpy(), memory.share(0).numpy()

    ranks = on_two_ranks(fill)
    whole = ranks[0][0]
    np.testing.assert_array_equal(whole, ranks[1][0])
    np.testing.assert_array_equal(whole[:, [0, 3, 1]], given[0])
    np.testing.assert_array_equal(whole[:, [4, 2]], given[1][:, 1:])
    np.testing.assert_array_equal(whole[:, 5:], 9)
    for _, known, fresh, _ in ranks:
        assert known.all()
        assert not fresh.any()
    assert [len(rank[3]) for rank in ranks] == [4, 3]
    np.testing.assert_array_equal(np.concatenate([rank[3] for rank in ranks]), whole[0])


def test_what_was_seen_last_stays_however_often_ranks_exchange(
    on_two_ranks: Callable[[Callable[[int], object]], list],
) -> None:
    # rank 0 sees sample 0 first and sample 2 last, rank 1 the other way round
    steps = [([0], [2]), ([1], [3]), ([2], [0])]

    def marks(exchanged_after: set[int]) -> Callable[[int], list[float]]:
        def fill(rank: int) -> list[float]:
            memory = EmbeddingMemory(1, 4, 1)
            for step, seen in enumerate(steps):
                memory.update(torch.tensor(seen[rank]), torch.full((1, 1, 1), 10.0 * step + rank))
                if step in exchanged_after:
                    memory.exchange()
            return memory.embeddings.flatten().tolist()

        return fill

    for exchanged_after in ({2}, {0, 2}, {0, 1, 2}):
        assert on_two_ranks(marks(exchanged_after)) == [[21.0, 10.0, 20.0, 11.0]] * 2


def test_a_sample_that_only_one_rank_knows_is_known_to_both_and_no_other(
    on_two_ranks: Callable[[Callable[[int], object]], list],
) -> None:
    def fill(rank: int) -> list[bool]:
        memory = EmbeddingMemory(1, 3, 3)
        if rank == 1:
            memory.update(torch.tensor([2]), embeddings(1, 1))
        memory.exchange()
        return memory.known.tolist()

    assert on_two_ranks(fill) == [[False, False, True]] * 2


def test_shapes_that_do_not_fit_are_refused() -> None:
    memory = EmbeddingMemory(2, 5, 3)
    with pytest.raises(ValueError, match=r"the memory takes \(2, 4, 3\) for 4 samples, got \(1, 4, 3\)"):
        memory.update(torch.arange(4), embeddings(1, 4))
    with pytest.raises(ValueError, match="at least 1, got 2, 0 and 3; is the data set empty"):
        EmbeddingMemory(2, 0, 3)
