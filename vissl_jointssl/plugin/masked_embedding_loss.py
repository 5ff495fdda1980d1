"""`masked_embedding_loss`: stage 2's loss (Eq. 15) under its name in VISSL's registry."""

from __future__ import annotations

from typing import Any

from classy_vision.losses import ClassyLoss, register_loss
from torch import Tensor
from vissl.config import AttrDict

from vissl_jointssl.objectives.masked_embedding import masked_embedding_loss, weight_of_rank


@register_loss("masked_embedding_loss")
class MaskedEmbeddingLoss(ClassyLoss):
    """No options and no state; the mathematics is `objectives.masked_embedding`."""

    @classmethod
    def from_config(cls, loss_config: AttrDict) -> MaskedEmbeddingLoss:
        """Made by VISSL from `LOSS.masked_embedding_loss`."""
        return cls()

    def forward(self, output: list[Tensor], target: Any) -> Tensor:
        """Score `[predicted, embeddings, mask]` as `masked_decoder_head` returns it; `target` is VISSL's index.

        Weighted so that what VISSL and DDP do next, averaging over ranks, averages over the hidden slices of all.
        """
        predicted, embeddings, mask = output
        loss = masked_embedding_loss(predicted, embeddings, mask)
        return loss * weight_of_rank(mask).to(loss.dtype)
