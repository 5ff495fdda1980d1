"""`inter_swav_loss`: stage 3's clustering agreement of volumes (Eq. 11-12) under its name in VISSL's registry."""

from __future__ import annotations

from typing import Any

import torch
from classy_vision.losses import ClassyLoss, register_loss
from einops import rearrange
from torch import Tensor
from vissl.config import AttrDict

from vissl_jointssl.objectives.embedding_queue import EmbeddingQueue, codes_with_queue
from vissl_jointssl.objectives.sinkhorn import sinkhorn
from vissl_jointssl.objectives.swapped_prediction import swapped_prediction_loss


@register_loss("inter_swav_loss")
class InterSwAVLoss(ClassyLoss):
    """Each view's code, computed over the whole batch of all ranks, is predicted from the other view.

    Args:
        temperature: tau of Eq. 4.
        epsilon: Smoothness of the codes, Eq. 2.
        num_iters: Sinkhorn rounds.
        num_views: V, views in the batch; filled in from the transform.
        assign_views: Views whose codes are targets.
        embedding_width: D, width of the queued embeddings; filled in from the head.
        queue_length: Volumes of earlier steps that share in the balanced assignment, per rank and view; 0 is the paper.
        queue_start_iter: Steps before the queue takes part. It fills from the first on and must be full, as in SwAV's
            own code; VISSL's begins with random vectors (vissl/losses/swav_loss.py:310), and once both are full of
            embeddings the losses are the same.
    """

    def __init__(
        self,
        *,
        temperature: float,
        epsilon: float,
        num_iters: int,
        num_views: int,
        assign_views: list[int],
        embedding_width: int,
        queue_length: int = 0,
        queue_start_iter: int = 0,
    ) -> None:
        super().__init__()
        self.temperature = temperature
        self.epsilon = epsilon
        self.num_iters = num_iters
        self.num_views = num_views
        self.assign_views = assign_views
        self.queue_start_iter = queue_start_iter
        self.queue = EmbeddingQueue(len(assign_views), queue_length, embedding_width) if queue_length else None
        self.register_buffer("num_steps", torch.zeros((), dtype=torch.long))
        # Detached prototypes (K, D), one per set: `InterPrototypesHook` sets them before each call, because a loss
        # must not own parameters in VISSL, and queued embeddings are scored with today's prototypes.
        self.prototypes: list[Tensor] = []
        # Codes of the last batch by its first set of prototypes, (A, B, K), for whoever watches the training.
        self.last_codes: Tensor | None = None

    @classmethod
    def from_config(cls, loss_config: AttrDict) -> InterSwAVLoss:
        """Made by VISSL from `LOSS.inter_swav_loss`, which `plugin.config` has checked and completed."""
        return cls(**{key: value for key, value in loss_config.items() if key != "name"})

    def forward(self, output: list[Tensor], target: Any) -> Tensor:
        """Score `[embeddings (V*B, D), scores (V*B, K), ...]`, view-major, as `swav_head` returns it.

        Several sets of prototypes are averaged. `target` is VISSL's sample index and is not used.
        """
        embeddings, *score_sets = output
        past = self._past_embeddings()
        losses = [self._one_set(scores, index, past) for index, scores in enumerate(score_sets)]
        if self.training:
            self.num_steps += 1
            if self.queue is not None:
                by_view = rearrange(embeddings.detach(), "(v b) d -> v b d", v=self.num_views)
                self.queue.update(by_view[self.assign_views])
        return torch.stack(losses).mean()

    def _past_embeddings(self) -> Tensor | None:
        if self.queue is None or not self.queue.is_full() or int(self.num_steps) < self.queue_start_iter:
            return None
        return self.queue.embeddings()

    def _one_set(self, scores: Tensor, index: int, past: Tensor | None) -> Tensor:
        by_view = rearrange(scores, "(v b) k -> v b k", v=self.num_views)
        codes = [
            sinkhorn(by_view[view].detach(), self.epsilon, self.num_iters)
            if past is None
            else codes_with_queue(by_view[view], past[position], self.prototypes[index], self.epsilon, self.num_iters)
            for position, view in enumerate(self.assign_views)
        ]
        if index == 0:
            self.last_codes = torch.stack(codes)
        return swapped_prediction_loss(by_view, torch.stack(codes), self.assign_views, self.temperature)
