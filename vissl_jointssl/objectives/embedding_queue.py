"""A queue of past volume embeddings, which lets Sinkhorn balance over more samples than one batch holds.

With B far below K, an even share of the batch per prototype is a fraction of a sample and says little. Past embeddings
join the batch for the balancing only; their scores are recomputed with the present prototypes. As in VISSL, each rank
keeps its own queue and the caller decides from which iteration on it is used. With L a multiple of B, two ranks with
queues of L hold what one rank with 2B volumes a step and a queue of 2L would.

The past was embedded by older weights. Where these have moved all volumes by more than volumes differ, the present
batch is balanced against its own past: its codes tell the direction of the move, and the loss exceeds ln K.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vissl_jointssl.objectives.sinkhorn import sinkhorn


class EmbeddingQueue(nn.Module):
    """The newest L embeddings of each view that gets codes.

    Unlike VISSL's, it starts empty and not with random vectors, and only what was really put in takes part.

    Args:
        views: Views that get codes, A.
        length: Embeddings kept for each, L, on this rank.
        width: Width of an embedding, D.

    Raises:
        ValueError: If ``length`` is not positive.
    """

    stored: Tensor
    filled: Tensor

    def __init__(self, views: int, length: int, width: int) -> None:
        super().__init__()
        if length < 1:
            raise ValueError(f"a queue holds at least 1 embedding, got length {length}; to go without, make no queue")
        self.register_buffer("stored", torch.zeros(views, length, width))
        self.register_buffer("filled", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def update(self, embeddings: Tensor) -> None:
        """Put the embeddings of one batch ``(A, B, D)`` in front; the oldest fall out.

        Raises:
            ValueError: If the number of views or the width is another.
        """
        views, length, width = self.stored.shape
        if embeddings.ndim != 3 or embeddings.shape[0] != views or embeddings.shape[2] != width:
            raise ValueError(
                f"the queue takes embeddings of shape ({views}, B, {width}), got {tuple(embeddings.shape)}"
            )
        self.stored.copy_(torch.cat([embeddings.to(self.stored.dtype), self.stored], dim=1)[:, :length])
        self.filled.add_(embeddings.shape[1]).clamp_(max=length)

    def is_full(self) -> bool:
        """Whether it holds L embeddings; the first few alone tell how the first steps moved, not how volumes differ."""
        return int(self.filled) == self.stored.shape[1]

    def embeddings(self) -> Tensor:
        """What the queue holds so far, newest first, ``(A, filled, D)``."""
        return self.stored[:, : int(self.filled)]


def codes_with_queue(
    scores: Tensor, queued: Tensor, prototypes: Tensor, epsilon: float = 0.05, iterations: int = 3
) -> Tensor:
    """Codes of a batch, balanced over the batch and the queue together.

    Args:
        scores: Scores of the batch for one view, ``(B, K)``.
        queued: The queue's embeddings of that view, ``(filled, D)``; may be empty.
        prototypes: Present prototypes, ``(K, D)``.
        epsilon: As in `sinkhorn`.
        iterations: As in `sinkhorn`.

    Returns:
        ``codes`` of the batch alone, ``(B, K)``, without gradient.
    """
    exact = torch.promote_types(scores.dtype, torch.float32)
    with torch.autocast(scores.device.type, enabled=False):  # half-precision scores would move codes by epsilon's scale
        past = queued.detach().to(exact) @ prototypes.detach().to(exact).T
    return sinkhorn(torch.cat([scores.detach().to(exact), past]), epsilon, iterations)[: scores.shape[0]]
