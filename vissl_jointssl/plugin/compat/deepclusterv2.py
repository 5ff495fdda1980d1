"""DeepCluster-v2's memory bank on any device, and after a resume on several ranks."""

from __future__ import annotations

import logging
from collections.abc import Iterable

import torch
from classy_vision.generic.distributed_util import broadcast, gather_from_all, get_rank, get_world_size
from torch import Tensor, nn
from torch.nn.functional import normalize
from vissl.hooks.deepclusterv2_hooks import InitMemoryHook
from vissl.losses.deepclusterv2_loss import DeepClusterV2Loss
from vissl.trainer.train_task import SelfSupervisionTask

from vissl_jointssl.objectives.spherical_kmeans import nearest_centroids, refine_centroids
from vissl_jointssl.plugin.compat.patching import announce

IGNORED = -100  # the assignment of an image that no rank has in memory; VISSL's cross entropy skips it
REBUILD_NOTICE = "DeepCluster-v2: the checkpoint holds rank 0's memory only; filling every rank's memory again"


def replace_memory() -> None:
    """``vissl/losses/deepclusterv2_loss.py:118``, 123, 156, 179 and 180 call ``.cuda()`` whatever the device is.

    Not a matter of versions: so it was in 2021. The replacements use the device of the memory bank.
    """
    DeepClusterV2Loss.init_memory = fill_memory
    DeepClusterV2Loss.cluster_memory = cluster_memory


def rebuild_memory_on_resume() -> None:
    """``vissl/hooks/deepclusterv2_hooks.py:31`` trusts the memory bank of a checkpoint (by design).

    Only rank 0's bank is saved (``log_hooks.py:450``) and every rank loads it, so that after a resume on several ranks
    all images but rank 0's would go without a cluster until the next epoch has passed. A run of ours takes back every
    rank's bank (``resume.give_each_rank_its_own_loss``), within its first epoch, too.
    """
    InitMemoryHook.on_start = _on_start


def fill_memory(loss: DeepClusterV2Loss, dataloader: Iterable[dict], model: nn.Module) -> None:
    """Embed this rank's share of the images and keep the embeddings in its memory bank.

    Args:
        loss: Holds the bank ``local_memory_embeddings`` (crops for memory, images of this rank, D) and its index.
        dataloader: Yields multi-crop batches: ``data[0][crop]`` is (B, C, H, W), ``data_idx[0]`` is (V * B,).
        model: Embeds images; the first of its outputs is (B, D).
    """
    device = loss.local_memory_embeddings.device
    start = 0
    with torch.no_grad():
        for batch in dataloader:
            count = len(batch["data_idx"][0]) // loss.num_crops
            rows = slice(start, start + count)
            loss.local_memory_index[rows] = batch["data_idx"][0][:count].to(device, non_blocking=True)
            for bank, crop in zip(loss.local_memory_embeddings, loss.crops_for_mb, strict=True):
                images = batch["data"][0][crop].to(device, non_blocking=True)
                bank[rows] = normalize(model(images)[0], dim=1).to(bank.dtype)
            start += count
    logging.info(f"Rank: {get_rank()}, memory bank filled with {start} images")


def cluster_memory(loss: DeepClusterV2Loss) -> None:
    """Cluster the banks of all ranks with spherical k-means and hand every image its cluster.

    Args:
        loss: Its ``centroids{head}`` (K, D) and ``assignments`` (heads, N) are overwritten.

    Raises:
        ValueError: If a rank remembers fewer images than there are clusters.
    """
    loss.start_idx = 0
    with torch.no_grad():
        for head, clusters in enumerate(loss.num_clusters):
            bank = loss.local_memory_embeddings[head % loss.nmb_mbs]
            first = _first_centroids(bank, clusters)
            centroids = refine_centroids(bank, first, loss.nmb_kmeans_iters, reseed_empty=False)
            getattr(loss, f"centroids{head}").copy_(centroids)
            assignments = gather_from_all(nearest_centroids(bank, centroids))
            loss.assignments[head] = IGNORED
            loss.assignments[head, gather_from_all(loss.local_memory_index)] = assignments
    logging.info(f"Rank: {get_rank()}, memory bank clustered")


def _first_centroids(bank: Tensor, clusters: int) -> Tensor:
    """Draw ``clusters`` rows of rank 0's bank, the same on every rank: (K, D)."""
    if len(bank) < clusters:
        raise ValueError(
            f"DeepCluster-v2 draws its {clusters} first centroids from the {len(bank)} images of one rank; lower "
            f"config.LOSS.deepclusterv2_loss.num_clusters to at most {len(bank)}, or use more images or fewer ranks"
        )
    # Rank 0 alone draws, so that the other ranks' random numbers stay where VISSL has them.
    rows = torch.randperm(len(bank))[:clusters] if get_rank() == 0 else torch.arange(clusters)
    return broadcast(bank[rows.to(bank.device)], src=0)


def _on_start(self: InitMemoryHook, task: SelfSupervisionTask) -> None:
    """Fill the memory when training starts, and when it resumes on more than one rank."""
    if task.config["LOSS"]["name"] != "deepclusterv2_loss":
        return
    if getattr(task, "own_state", None) is not None:  # set by `resume` alone
        return
    resumed = task.train_phase_idx >= 0
    if not resumed:
        task.loss.init_memory(task.dataloaders["train"], task.model)
    elif get_world_size() > 1:
        announce(REBUILD_NOTICE)
        # The pass must see the whole shard, also when training resumes in the middle of an epoch; the trainer sets
        # the true position again before the first step.
        task.set_epoch("train", epoch=task.phase_idx + 1, start_iter=0, train_phase_idx=task.train_phase_idx + 1)
        task.loss.local_memory_embeddings.zero_()
        task.loss.local_memory_index.zero_()
        statistics = {name: buffer.clone() for name, buffer in task.model.named_buffers()}
        task.loss.init_memory(task.dataloaders["train"], task.model)
        # Training did not include this pass, so batch norm must not remember it.
        for name, buffer in task.model.named_buffers():
            buffer.copy_(statistics[name])
