"""`inter_deepclusterv2_loss`: stage 3 with k-means clusters of all volumes, under its name in VISSL's registry."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from classy_vision.losses import ClassyLoss, register_loss
from einops import rearrange
from torch import Tensor
from torch.nn.functional import normalize
from vissl.config import AttrDict

from vissl_jointssl.objectives.cluster_prediction import cluster_prediction_loss, cluster_scores
from vissl_jointssl.objectives.embedding_memory import EmbeddingMemory
from vissl_jointssl.objectives.over_ranks import join_ranks
from vissl_jointssl.objectives.spherical_kmeans import spherical_kmeans

UNASSIGNED = -1


@register_loss("inter_deepclusterv2_loss")
class InterDeepClusterV2Loss(ClassyLoss):
    """Each view is scored against the epoch's centroids and must find the cluster of its volume.

    As in VISSL's loss (vissl/losses/deepclusterv2_loss.py:25), view i of `memory_views` feeds bank i, head h is
    clustered from bank h modulo the number of banks, and the heads' losses are averaged. `InterClusterMemoryHook` fills
    the memory and calls `cluster`.

    Args:
        temperature: tau of Eq. 4.
        num_clusters: K of each head.
        kmeans_iters: Rounds of k-means.
        memory_views: Views whose embeddings are remembered.
        num_views: V, views in the batch; filled in from the transform.
        embedding_width: D of what the head gives; filled in.
        num_train_samples: N; filled in by VISSL, from the length of the data set (vissl/trainer/train_task.py:391).
        seed: Of the clusterings, with the epoch; filled in from `SEED_VALUE`.
    """

    assignments: Tensor  # (heads, N)
    clustered_epoch: Tensor  # scalar, the epoch that centroids and assignments are for; -1 before the first

    def __init__(
        self,
        *,
        temperature: float,
        num_clusters: list[int],
        kmeans_iters: int,
        memory_views: list[int],
        num_views: int,
        embedding_width: int,
        num_train_samples: int,
        seed: int,
    ) -> None:
        super().__init__()
        self.temperature = temperature
        self.num_clusters = num_clusters
        self.kmeans_iters = kmeans_iters
        self.memory_views = memory_views
        self.num_views = num_views
        self.seed = seed
        self.memory = EmbeddingMemory(len(memory_views), num_train_samples, embedding_width)
        self.register_buffer("assignments", torch.full((len(num_clusters), num_train_samples), UNASSIGNED))
        self.register_buffer("clustered_epoch", torch.tensor(-1))
        for head, clusters in enumerate(num_clusters):
            self.register_buffer(f"centroids{head}", torch.zeros(clusters, embedding_width))
        # Predictions of the last batch by the first head, (V, B, K), for whoever watches the training.
        self.last_predictions: Tensor | None = None

    @classmethod
    def from_config(cls, loss_config: AttrDict) -> InterDeepClusterV2Loss:
        """Made by VISSL from `LOSS.inter_deepclusterv2_loss`, which `plugin.config` has checked and completed."""
        return cls(**{key: value for key, value in loss_config.items() if key != "name"})

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """Score embeddings ``(V*B, D)``, view-major, and remember them.

        Args:
            output: Of the model; of any length, normalised here.
            target: Sample indices ``(V*B,)``, VISSL's `LABEL_TYPE: sample_index`.
        """
        with torch.autocast(output.device.type, enabled=False):
            exact = output.to(torch.promote_types(output.dtype, torch.float32))
            embeddings = normalize(exact, dim=1)
        losses = []
        for head in range(len(self.num_clusters)):
            scores = cluster_scores(embeddings, self.centroids(head), self.temperature)
            losses.append(cluster_prediction_loss(scores, self.assignments[head, target]))
            if head == 0:
                self.last_predictions = rearrange(scores.detach(), "(v b) k -> v b k", v=self.num_views).softmax(dim=-1)
        if self.training:
            self.remember(embeddings, target)
        return torch.stack(losses).mean()

    def centroids(self, head: int) -> Tensor:
        """Unit vectors ``(K, D)`` of one head."""
        centroids: Tensor = getattr(self, f"centroids{head}")
        return centroids

    def remember(self, embeddings: Tensor, target: Tensor) -> None:
        """Keep unit embeddings ``(V*B, D)`` of a batch with sample indices ``(V*B,)``."""
        by_view = rearrange(embeddings.detach(), "(v b) d -> v b d", v=self.num_views)
        self.memory.update(target[: by_view.shape[1]], by_view[self.memory_views])

    def cluster(self, epoch: int) -> None:
        """Cluster the memory of all ranks for an epoch; all ranks must call this.

        Raises:
            RuntimeError: If a sample has never been seen, and so could get no cluster.
        """
        self.memory.exchange()
        unseen = (~self.memory.known).nonzero().flatten().tolist()
        if unseen:
            raise RuntimeError(
                f"{len(unseen)} of {len(self.memory.known)} samples are not in memory, first {unseen[:5]}; "
                "InterClusterMemoryHook fills it before the first epoch: is it among the run's hooks?"
            )
        for head, clusters in enumerate(self.num_clusters):
            seed = np.random.SeedSequence((self.seed, epoch, head)).generate_state(1)[0]
            share = self.memory.share(head % len(self.memory_views))
            centroids, assignments = spherical_kmeans(share, clusters, self.kmeans_iters, int(seed))
            self.centroids(head).copy_(centroids)
            self.assignments[head] = join_ranks(assignments)
        self.clustered_epoch.fill_(epoch)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """As PyTorch's.

        Raises:
            ValueError: If the state remembers another number of samples: the data has changed since.
        """
        before, now = len(state_dict["memory.known"]), len(self.memory.known)
        if before != now:
            raise ValueError(
                f"the checkpoint remembers {before} samples and the data set has {now}, so that indices would mean "
                "other volumes; resume with the same config.DATA.TRAIN, or choose an empty config.CHECKPOINT.DIR"
            )
        return super().load_state_dict(state_dict, strict=strict, assign=assign)
