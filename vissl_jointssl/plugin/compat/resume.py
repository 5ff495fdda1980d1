"""Runs of ours go on where they were: each rank with its own state, each sample drawn as it would have been.

Nothing here concerns a config without a `JOINT_SSL` section. The other half is `plugin/hooks/run_state.py`.
"""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.utils.data import DataLoader, DistributedSampler, Sampler
from vissl import data
from vissl.data.ssl_dataset import GenericSSLDataset
from vissl.trainer.train_task import SelfSupervisionTask

from vissl_jointssl.objectives.over_ranks import rank_and_world
from vissl_jointssl.plugin.compat.patching import replace_everywhere
from vissl_jointssl.plugin.random_states import seeded_for
from vissl_jointssl.plugin.resharding import Place
from vissl_jointssl.plugin.resumable_sampler import ResumableSampler
from vissl_jointssl.plugin.run_state import Layout, hand_out
from vissl_jointssl.views import SampleKey

_vissl_build_loss = SelfSupervisionTask._build_loss
_vissl_set_epoch = SelfSupervisionTask.set_epoch
_vissl_get_item = GenericSSLDataset.__getitem__
_vissl_build_dataloader = data.build_dataloader
_vissl_get_sampler = data.get_sampler


def give_each_rank_its_own_loss() -> None:
    """``vissl/trainer/train_task.py:744`` loads rank 0's loss on every rank (by design)."""
    SelfSupervisionTask._build_loss = _build_loss


def _build_loss(self: SelfSupervisionTask) -> nn.Module:
    """Build the loss, and make the checkpoint this rank's: VISSL loads the loss from it next, and the counters."""
    loss = _vissl_build_loss(self)
    if self.checkpoint is not None and "train" in self.dataloaders and "JOINT_SSL" in self.config:
        place = Place(*rank_and_world())
        now = Layout(self.config.DATA.TRAIN.BATCHSIZE_PER_REPLICA, len(self.dataloaders["train"]), place)
        self.own_state = hand_out(self.checkpoint, loss, now)
    return loss


def seed_every_sample() -> None:
    """``vissl/utils/misc.py:181`` seeds loader workers, not samples (by design).

    What a sample's transforms draw then depends on the number of workers and on what they drew before, and without
    workers on the layers of the model as well. Transforms draw in ``vissl/data/ssl_dataset.py:298``; of the epoch, a
    data set knows nothing (``train_task.py:758``).
    """
    SelfSupervisionTask.set_epoch = _set_epoch
    GenericSSLDataset.__getitem__ = _get_item


def _set_epoch(self: SelfSupervisionTask, phase_type: str, epoch: int, start_iter: int, train_phase_idx: int) -> None:
    """VISSL's own, and the data set knows the epoch before it travels to the workers."""
    _vissl_set_epoch(self, phase_type, epoch, start_iter, train_phase_idx)
    self.datasets[phase_type].drawn_epoch = max(0, train_phase_idx)  # -1 before the first


def _get_item(self: GenericSSLDataset, idx: int) -> dict[str, list[Any]]:
    """One sample with its transforms applied; in a run of ours, drawn from (seed, epoch, index) alone."""
    if "JOINT_SSL" not in self.cfg:
        return _vissl_get_item(self, idx)
    with seeded_for(SampleKey(int(self.cfg.get("SEED_VALUE", 0)), getattr(self, "drawn_epoch", 0), int(idx))):
        return _vissl_get_item(self, idx)


def resume_within_an_epoch() -> None:
    """``vissl/data/__init__.py:125`` begins every epoch at its start, also one that is resumed within (by design).

    Such a run takes the interrupted epoch's steps once more, and fails at its end (``standard_train_step.py:191``).
    """
    replace_everywhere(_vissl_build_dataloader, build_dataloader)


def build_dataloader(dataset: GenericSSLDataset, dataset_config: dict, *arguments: Any, **options: Any) -> DataLoader:
    """VISSL's own, with a sampler that can begin within an epoch, in a run of ours."""
    if "JOINT_SSL" in dataset.cfg:
        options.setdefault("get_sampler", get_sampler)
    return _vissl_build_dataloader(dataset, dataset_config, *arguments, **options)


def get_sampler(dataset: GenericSSLDataset, dataset_config: dict, sampler_seed: int = 0) -> Sampler | None:
    """VISSL's own, but for PyTorch's sampler of the training data: the same order, from any step on."""
    sampler = _vissl_get_sampler(dataset, dataset_config, sampler_seed)
    if dataset.split != "TRAIN" or type(sampler) is not DistributedSampler:
        return sampler
    return ResumableSampler(dataset, dataset_config["BATCHSIZE_PER_REPLICA"])
