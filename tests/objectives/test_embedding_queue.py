from __future__ import annotations

import pytest
import torch
from torch.nn.functional import normalize

from vissl_jointssl.objectives.embedding_queue import EmbeddingQueue, codes_with_queue
from vissl_jointssl.objectives.sinkhorn import sinkhorn


def test_the_queue_keeps_the_newest_first_and_drops_the_oldest() -> None:
    queue = EmbeddingQueue(views=2, length=5, width=1)
    seen: list[int] = []
    for step in range(4):
        batch = [10 * step, 10 * step + 1]
        queue.update(torch.tensor([batch, [-value for value in batch]], dtype=torch.float32).unsqueeze(-1))
        seen = (batch + seen)[:5]
        assert queue.embeddings()[0, :, 0].tolist() == seen
        assert queue.embeddings()[1, :, 0].tolist() == [-value for value in seen]
        assert queue.filled.item() == len(seen)
        assert queue.is_full() is (len(seen) == 5)


def test_only_what_was_put_in_takes_part() -> None:
    queue = EmbeddingQueue(views=1, length=8, width=3)
    assert queue.embeddings().shape == (1, 0, 3)
    queue.update(torch.ones(1, 2, 3))
    assert queue.embeddings().shape == (1, 2, 3)


def test_a_batch_longer_than_the_queue_fills_it_with_its_first() -> None:
    queue = EmbeddingQueue(views=1, length=2, width=1)
    queue.update(torch.arange(5.0).reshape(1, 5, 1))
    assert queue.embeddings().flatten().tolist() == [0.0, 1.0]


def test_the_queue_survives_a_checkpoint() -> None:
    queue = EmbeddingQueue(views=1, length=4, width=2)
    queue.update(torch.randn(1, 3, 2))
    other = EmbeddingQueue(views=1, length=4, width=2)
    other.load_state_dict(queue.state_dict())
    assert torch.equal(other.embeddings(), queue.embeddings())


def test_the_queue_holds_no_gradient_and_copies_what_it_gets() -> None:
    queue = EmbeddingQueue(views=1, length=4, width=2)
    batch = torch.randn(1, 2, 2, requires_grad=True)
    queue.update(batch)
    kept = queue.embeddings().clone()
    batch.data.zero_()
    assert torch.equal(queue.embeddings(), kept)
    assert not queue.embeddings().requires_grad


def test_queue_codes_are_the_batch_part_of_the_joint_codes() -> None:
    z, past = normalize(torch.randn(4, 6), dim=1), normalize(torch.randn(10, 6), dim=1)
    prototypes = normalize(torch.randn(7, 6), dim=1)
    codes = codes_with_queue(z @ prototypes.T, past, prototypes)
    torch.testing.assert_close(codes, sinkhorn(torch.cat([z, past]) @ prototypes.T)[:4])
    assert not torch.allclose(codes, sinkhorn(z @ prototypes.T), atol=1e-2)


def test_an_empty_queue_changes_nothing() -> None:
    scores, prototypes = torch.randn(4, 7), torch.randn(7, 6)
    assert torch.equal(codes_with_queue(scores, torch.zeros(0, 6), prototypes), sinkhorn(scores))


def test_queue_codes_equal_vissls_once_the_queue_is_full() -> None:
    import vissl_jointssl.plugin  # noqa: F401 - VISSL cannot be imported before it

    # isort: split
    from vissl.losses.swav_loss import SwAVCriterion

    from vissl_jointssl.objectives.swapped_prediction import swapped_prediction_loss

    torch.manual_seed(0)
    criterion = SwAVCriterion(0.1, [0, 1], 2, 3, 0.05, False, [7], 6, 5, 0, "")
    criterion.use_gpu, criterion.use_queue = False, True
    prototypes = torch.nn.Linear(5, 7, bias=False)
    theirs_holder = torch.nn.Module()
    theirs_holder.nmb_heads, theirs_holder.prototypes0 = 1, prototypes
    queue = EmbeddingQueue(views=2, length=6, width=5)
    for _ in range(5):
        z = normalize(torch.randn(2, 3, 5), dim=-1)
        with torch.no_grad():
            scores = prototypes(z)
        criterion.compute_queue_scores(theirs_holder)
        theirs = criterion(scores.flatten(0, 1), 0)
        if queue.embeddings().shape[1] == 6:
            codes = [codes_with_queue(scores[view], queue.embeddings()[view], prototypes.weight) for view in (0, 1)]
            torch.testing.assert_close(swapped_prediction_loss(scores, torch.stack(codes), [0, 1]), theirs)
        criterion.update_emb_queue(z.flatten(0, 1))
        queue.update(z)
    assert queue.embeddings().shape[1] == 6


def test_autocast_does_not_touch_the_codes() -> None:
    z, past, prototypes = (normalize(torch.randn(n, 64), dim=1) for n in (4, 30, 20))
    scores = z @ prototypes.T
    with torch.autocast("cpu", torch.bfloat16):
        codes = codes_with_queue(scores, past, prototypes)
    assert torch.equal(codes, codes_with_queue(scores, past, prototypes))


def test_a_queue_of_no_length_and_embeddings_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match="got length 0; to go without, make no queue"):
        EmbeddingQueue(views=1, length=0, width=2)
    with pytest.raises(ValueError, match=r"embeddings of shape \(2, B, 3\), got \(1, 4, 3\)"):
        EmbeddingQueue(views=2, length=4, width=3).update(torch.zeros(1, 4, 3))
