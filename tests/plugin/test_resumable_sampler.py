"""The sampler of a run that may be resumed within an epoch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils.data import Dataset, DistributedSampler

from vissl_jointssl.plugin.resumable_sampler import ResumableSampler

from vissl import data  # isort: skip - after the plugin has made VISSL importable
from vissl.config import AttrDict  # isort: skip
from vissl.data.data_helper import DeterministicDistributedSampler, StatefulDistributedSampler  # isort: skip

SAMPLES, BATCH = 11, 2


class Numbers(Dataset):
    """As VISSL's data set, as far as samplers and loaders look."""

    def __init__(self, split: str = "TRAIN", ours: bool = True) -> None:
        self.split = split
        self.cfg = AttrDict({"DATA": {"ENABLE_ASYNC_GPU_COPY": False}, **({"JOINT_SSL": {}} if ours else {})})

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> int:
        return index


def loader(dataset: Numbers, **section: Any) -> Any:
    """As VISSL's task makes it."""
    settings = {
        "BATCHSIZE_PER_REPLICA": BATCH, "COLLATE_FUNCTION": "default_collate", "COLLATE_FUNCTION_PARAMS": {},
        "DROP_LAST": False, "USE_DEBUGGING_SAMPLER": False, "USE_STATEFUL_DISTRIBUTED_SAMPLER": False, **section,
    }  # fmt: skip
    return data.build_dataloader(
        dataset=dataset, dataset_config=settings, num_dataloader_workers=0, pin_memory=False,
        multi_processing_method="fork", device=torch.device("cpu"),
    )  # fmt: skip


def epochs_of_one_rank(rank: int) -> list[tuple[list[int], list[int], list[list[int]]]]:
    """PyTorch's order of three epochs, ours, and the rest of ours from every step on."""
    theirs, ours = DistributedSampler(Numbers()), ResumableSampler(Numbers(), BATCH)
    seen = []
    for epoch in range(3):
        theirs.set_epoch(epoch), ours.set_epoch(epoch), ours.set_start_iter(0)
        whole, rests = list(ours), []
        for step in range(4):
            ours.set_start_iter(step)
            rests.append(list(ours))
        seen.append((list(theirs), whole, rests))
    return seen


def test_the_order_is_pytorchs_from_any_step_on(on_two_ranks: Callable[..., Any]) -> None:
    for seen in on_two_ranks(epochs_of_one_rank):
        for theirs, whole, rests in seen:
            assert whole == theirs
            assert rests == [theirs[step * BATCH :] for step in range(4)]
        assert seen[0][0] != seen[1][0]


def test_a_step_that_is_past_the_end_or_before_the_beginning_leaves_nothing_or_all(one_gloo_rank: None) -> None:
    sampler = ResumableSampler(Numbers(), BATCH)
    sampler.set_start_iter(99)
    assert list(sampler) == []
    sampler.set_start_iter(-3)
    assert len(list(sampler)) == len(sampler) == SAMPLES


def test_a_loader_begins_within_an_epoch_with_the_batches_that_are_left(one_gloo_rank: None) -> None:
    whole = loader(Numbers())
    batches = [batch.tolist() for batch in whole]
    whole.sampler.set_start_iter(4)
    assert [batch.tolist() for batch in whole] == batches[4:]
    assert len(batches[4:]) == 2
    assert len(whole) == 6  # the length of an epoch, by which VISSL plans


@pytest.mark.parametrize(
    ("dataset", "section", "kind"),
    [
        (Numbers(), {}, ResumableSampler),
        (Numbers(split="TEST"), {}, DistributedSampler),
        (Numbers(ours=False), {}, DistributedSampler),
        (Numbers(), {"USE_STATEFUL_DISTRIBUTED_SAMPLER": True}, StatefulDistributedSampler),
        (Numbers(), {"USE_DEBUGGING_SAMPLER": True}, DeterministicDistributedSampler),
    ],
)
def test_only_our_runs_training_data_have_it_and_only_in_place_of_pytorchs(
    dataset: Numbers, section: dict[str, bool], kind: type, one_gloo_rank: None
) -> None:
    assert type(loader(dataset, **section).sampler) is kind
