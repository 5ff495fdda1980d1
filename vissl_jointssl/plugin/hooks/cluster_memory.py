"""Fills and clusters the memory of `inter_deepclusterv2_loss`.

VISSL's own hooks act on `deepclusterv2_loss` alone, by its name (vissl/hooks/deepclusterv2_hooks.py:28).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import torch
from classy_vision.generic.distributed_util import is_primary
from classy_vision.hooks import ClassyHook
from classy_vision.tasks.classification_task import AmpType
from torch import Tensor
from torch.utils.data import Sampler
from vissl.data import build_dataloader

from vissl_jointssl.objectives.collapse import recognised
from vissl_jointssl.objectives.over_ranks import rank_and_world
from vissl_jointssl.plugin.collapse_limits import REMEDIES, CollapseOptions, unrecognised
from vissl_jointssl.plugin.inter_deepclusterv2_loss import InterDeepClusterV2Loss
from vissl_jointssl.plugin.micro_batches import buffers_kept, random_state, replayed
from vissl_jointssl.plugin.sample_names import sample_names, shown

_COMPARED = 1024  # volumes at most: all pairs of them are compared


class InterClusterMemoryHook(ClassyHook):
    """Every sample of the data set has an embedding before the first epoch, and a cluster in every epoch.

    * At the start, one pass without training embeds all samples: the sampler of the training may leave some out of an
      epoch (`DROP_LAST`, or a number of samples that ranks do not divide), but it is not always the same ones.
    * Then it says how often a volume is told from others by its other view. Where that is as by chance, the clusters
      are of views and not of volumes, and training on them would draw all volumes together: a warning.
    * Before each epoch the memory is clustered, with a seed from `SEED_VALUE` and the epoch.
    * Before each checkpoint, ranks exchange what they saw, so that the memory rank 0 saves is everyone's. A resumed run
      takes it from there, on any number of ranks; within an epoch it goes on with that epoch's clusters.

    Args:
        least_recognition: Below it, it warns (`JOINT_SSL.COLLAPSE.RECOGNITION`).
    """

    def __init__(self, least_recognition: float = CollapseOptions.recognition) -> None:
        super().__init__()
        self._least_recognition = least_recognition

    on_forward = ClassyHook._noop
    on_loss_and_meter = ClassyHook._noop
    on_backward = ClassyHook._noop
    on_update = ClassyHook._noop
    on_end = ClassyHook._noop

    def on_start(self, task: Any) -> None:
        """Fill the memory, unless a checkpoint brought it."""
        known = task.loss.memory.known
        if known.all():
            _say(f"memory of {len(known)} samples restored from {task.checkpoint_path}, on every rank")
        else:
            fill_memory(task)
            _say(f"memory of {len(known)} samples filled by one pass without training")
            self._tell_recognition(task.loss.memory.embeddings)

    def on_phase_start(self, task: Any) -> None:
        """Cluster for the epoch that begins, unless its checkpoint brought the clusters."""
        epoch = task.train_phase_idx
        if not task.train:
            return
        loss: InterDeepClusterV2Loss = task.loss
        if int(loss.clustered_epoch) == epoch:
            _say(f"epoch {epoch} goes on with the clusters of its checkpoint")
            return
        loss.cluster(epoch)
        sizes = [
            assigned.bincount(minlength=k) for assigned, k in zip(loss.assignments, loss.num_clusters, strict=True)
        ]
        shown = "; ".join(
            f"{len(each)} clusters of {int(each.min())} to {int(each.max())} samples, {int((each == 0).sum())} empty"
            for each in sizes
        )
        _say(f"epoch {epoch}: {shown}")

    def on_step(self, task: Any) -> None:
        """Exchange before VISSL's hook writes a checkpoint within the epoch (vissl/hooks/log_hooks.py:350)."""
        frequency = task.config["CHECKPOINT"]["CHECKPOINT_ITER_FREQUENCY"]
        if task.train and frequency > 0 and task.iteration % frequency == 0:
            task.loss.memory.exchange()

    def on_phase_end(self, task: Any) -> None:
        """Exchange before VISSL's hook writes the epoch's checkpoint."""
        if task.train:
            task.loss.memory.exchange()

    def _tell_recognition(self, memory: Tensor) -> None:
        """Say how often views are told apart, from `(V, N, D)` of one state of the model; nothing where V or N is 1."""
        views, volumes, _ = memory.shape
        if views < 2 or volumes < 2 or not is_primary():
            return
        first, second = memory[:2, :: -(-volumes // _COMPARED)].cpu()
        recognition = float(recognised(first, second).mean())
        _say(f"before the first step a volume is told from another one by its other view in {recognition:.0%}")
        if wrong := unrecognised(recognition, f"over {len(first)} volumes", self._least_recognition):
            logging.warning(f"DeepCluster-v2: {wrong}; {REMEDIES['recognition']}")


def fill_memory(task: Any) -> None:
    """Embed every sample once as training does: views drawn, BatchNorm by batch statistics, mixed precision if any.

    Nothing that training goes on with shows that this happened: no gradient, BatchNorm's statistics and the state of
    the random generators as before.

    Raises:
        FloatingPointError: If an embedding is NaN or infinite; on all ranks, because all know all samples by then.
    """
    loss: InterDeepClusterV2Loss = task.loss
    device = task.device
    loader = build_dataloader(
        dataset=task.datasets["train"],
        dataset_config=task.config.DATA.TRAIN,
        num_dataloader_workers=task.config.DATA.NUM_DATALOADER_WORKERS,
        pin_memory=task.config.DATA.PIN_MEMORY,
        multi_processing_method=task.config.MULTI_PROCESSING_METHOD,
        device=device,
        get_sampler=lambda dataset, section, _: WholeSet(len(dataset), section["BATCHSIZE_PER_REPLICA"], loss.seed),
    )
    task.model.train()
    half = task.amp_type == AmpType.PYTORCH
    with (
        torch.no_grad(),
        torch.autocast(device.type, enabled=half),
        buffers_kept(task.model),
        replayed(random_state()),
    ):
        for batch in loader:
            views = [view.to(device) for view in batch["data"][0]]
            embeddings = task.model(views)[0].float()
            loss.remember(torch.nn.functional.normalize(embeddings, dim=1), batch["data_idx"][0].to(device))
    loss.memory.exchange()
    broken = (~loss.memory.embeddings.isfinite().all(dim=2).all(dim=0)).nonzero().flatten().tolist()
    if broken:
        raise FloatingPointError(
            f"embeddings of {len(broken)} samples are NaN or infinite before the first step: "
            f"{shown(sample_names(task.datasets['train'], broken))}; look at them with `jointssl doctor`, or "
            "start from other weights"
        )


class WholeSet(Sampler[int]):
    """This rank's samples of a pass over a whole data set, in full batches of equal number on every rank.

    Full, because a head's BatchNorm refuses a batch of one; equal, because SyncBN and DDP wait for every rank. So the
    list goes on from its beginning until it fits. Shuffled: neighbours in a manifest are of one data set, and their
    batch statistics would be those of no batch of the training. Step s of all ranks is the same set of samples as that
    of one rank with the whole batch.
    """

    def __init__(self, samples: int, batch: int, seed: int) -> None:
        order = torch.randperm(samples, generator=torch.Generator().manual_seed(seed))
        rank, world = rank_and_world()
        steps = -(-samples // (batch * world))
        order = order[torch.arange(steps * batch * world) % samples]
        self.indices: list[int] = order.view(steps, world, batch)[:, rank].flatten().tolist()

    def __iter__(self) -> Iterator[int]:
        """Indices, batch after batch."""
        return iter(self.indices)

    def __len__(self) -> int:
        """Of this rank."""
        return len(self.indices)


def _say(what: str) -> None:
    if is_primary():
        logging.info(f"DeepCluster-v2: {what}")
