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
    fresh: Tensor  # (N,), True where this rank has seen a sample since the ranks last exchanged

    def __init__(self, banks: int, samples: int, width: int) -> None:
        super().__init__()
        if min(banks, samples, width) < 1:
            raise ValueError(
                f"a memory needs banks, samples and a width of at least 1, got {banks}, {samples} and {width}; "
                "is the data set empty?"
            )
        self.register_buffer("embeddings", torch.zeros(banks, samples, width))
        self.register_buffer("known", torch.zeros(samples, dtype=torch.bool))
        self.register_buffer("fresh", torch.zeros(samples, dtype=torch.bool), persistent=False)

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
        self.fresh[indices] = True

    @torch.no_grad()
    def exchange(self) -> None:
        """Give every rank what each has seen since the last time; all ranks must call this.

        A sample that two ranks saw, because a sampler pads ranks to equal lengths, is taken from the lower rank.
        """
        rank, world = rank_and_world()
        seen_by = torch.where(self.fresh, rank, world)
        source = over_ranks(seen_by, distributed.ReduceOp.MIN)  # (N,), `world` where nobody saw the sample
        for bank in self.embeddings:  # one at a time: half the extra memory
            sent = torch.where((source == rank)[:, None], bank, 0)
            bank.copy_(torch.where((source < world)[:, None], over_ranks(sent), bank))
        self.known |= source < world
        self.fresh.fill_(False)

    def share(self, bank: int) -> Tensor:
        """This rank's part of a bank, ``(n, D)``: an equal piece, so that in rank order the pieces are all samples."""
        rank, world = rank_and_world()
        return self.embeddings[bank].tensor_split(world)[rank]
