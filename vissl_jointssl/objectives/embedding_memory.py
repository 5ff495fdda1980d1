"""The newest embedding of every sample of the data set, by one index, for clustering them all at once.

VISSL gives each rank a list of what it happened to see, and saves rank 0's (vissl/losses/deepclusterv2_loss.py:139):
samples that an epoch drops lose their cluster, and after a resume most of the list is another rank's. Here every rank
has a row for every sample; ranks exchange what they saw when an epoch ends, so any rank's copy is the whole memory and
can be saved, loaded and continued on another number of ranks. That costs A * N * D floats on each rank:
2 * 3664 volumes * 640 * 4 bytes = 19 MB for the largest data of the paper.
"""

from __future__ import annotations

import torch
from torch import Tensor, distributed, nn

from vissl_jointssl.objectives.over_ranks import over_ranks, rank_and_world


class EmbeddingMemory(nn.Module):
    """A banks of N embeddings, one bank per remembered view.

    Args:
        banks: A.
        samples: N, over all ranks and all data sets of the run.
        width: D.

    Raises:
        ValueError: If a size is not positive.
    """

    embeddings: Tensor  # (A, N, D)
    known: Tensor  # (N,), True once a sample has been seen by any rank
    fresh: Tensor  # (N,), which update since the ranks last exchanged brought a sample to this rank; 0 where none has

    def __init__(self, banks: int, samples: int, width: int) -> None:
        super().__init__()
        if min(banks, samples, width) < 1:
            raise ValueError(
                f"a memory needs banks, samples and a width of at least 1, got {banks}, {samples} and {width}; "
                "is the data set empty?"
            )
        self.register_buffer("embeddings", torch.zeros(banks, samples, width))
        self.register_buffer("known", torch.zeros(samples, dtype=torch.bool))
        self.register_buffer("fresh", torch.zeros(samples, dtype=torch.long), persistent=False)
        self.updates = 0  # since the ranks last exchanged

    @torch.no_grad()
    def update(self, indices: Tensor, embeddings: Tensor) -> None:
        """Keep the embeddings of a batch.

        Args:
            indices: Sample indices, ``(B,)``.
            embeddings: ``(A, B, D)``.

        Raises:
            ValueError: If the shapes do not fit.
        """
        banks, _, width = self.embeddings.shape
        if embeddings.shape != (banks, len(indices), width):
            raise ValueError(
                f"the memory takes ({banks}, {len(indices)}, {width}) for {len(indices)} samples, "
                f"got {tuple(embeddings.shape)}"
            )
        self.embeddings[:, indices] = embeddings.to(self.embeddings.dtype)
        self.updates += 1
        self.fresh[indices] = self.updates

    @torch.no_grad()
    def exchange(self) -> None:
        """Give every rank what each has seen since the last time; all ranks must call this.

        A sample that two ranks saw, because a sampler pads ranks to equal lengths, is taken from the one that saw it
        last; in one step, from the lower rank. So it does not matter how often ranks exchange.
        """
        rank, world = rank_and_world()
        order = torch.where(self.fresh > 0, self.fresh * world + (world - 1 - rank), -1)  # no two ranks' are alike
        last = over_ranks(order, distributed.ReduceOp.MAX)  # (N,), -1 where nobody saw the sample
        seen, mine = last >= 0, (last >= 0) & (last == order)
        for bank in self.embeddings:  # one at a time: half the extra memory
            sent = torch.where(mine[:, None], bank, 0)
            bank.copy_(torch.where(seen[:, None], over_ranks(sent), bank))
        self.known |= seen
        self.fresh.zero_()
        self.updates = 0

    def share(self, bank: int) -> Tensor:
        """This rank's part of a bank, ``(n, D)``: an equal piece, so that in rank order the pieces are all samples."""
        rank, world = rank_and_world()
        return self.embeddings[bank].tensor_split(world)[rank]
