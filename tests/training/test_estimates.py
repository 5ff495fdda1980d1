"""The arithmetic of the preflight, against loops, PyTorch's own sampler and numbers worked out by hand."""

from __future__ import annotations

import heapq

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data.distributed import DistributedSampler

from vissl_jointssl.training.estimates import (
    MEMORY_SHARE,
    checkpoints_kept,
    fitting_batch,
    run_seconds,
    shared_memory,
    steady_step,
    steps_per_epoch,
    workers_needed,
    workers_that_fit,
)


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize(("samples", "batch", "ranks"), [(47, 7, 1), (47, 7, 2), (8, 2, 4), (7, 2, 4), (9, 4, 3)])
def test_steps_of_an_epoch_are_those_of_pytorchs_loader(samples: int, batch: int, ranks: int, drop_last: bool) -> None:
    data = TensorDataset(torch.zeros(samples))
    sampler: DistributedSampler[torch.Tensor] = DistributedSampler(data, ranks, rank=0)
    expected = len(DataLoader(data, batch, sampler=sampler, drop_last=drop_last))
    assert steps_per_epoch(samples, batch, ranks, drop_last) == expected


def _step_with_a_queue(compute: float, load: float, workers: int, steps: int = 401) -> float:
    """A loader played step by step: each worker has two batches ready at most, and gives them in turn."""
    free = [(0.0, worker) for worker in range(workers)]
    heapq.heapify(free)
    now, taken, ready = 0.0, [], []
    for number in range(steps):
        at, worker = heapq.heappop(free)
        allowed = taken[number - 2 * workers] if number >= 2 * workers else 0.0  # room for one more
        done = max(at, allowed) + load
        heapq.heappush(free, (done, worker))
        ready.append(done)
        now = max(now, ready[number])
        taken.append(now)
        now += compute
    return (taken[-1] - taken[200]) / 200


@pytest.mark.parametrize(("compute", "load", "workers"), [(1.0, 0.4, 1), (1.0, 3.0, 1), (1.0, 3.0, 2), (1.0, 3.0, 4)])
def test_the_long_run_is_that_of_a_loader_played_step_by_step(compute: float, load: float, workers: int) -> None:
    assert steady_step(compute, load, workers, cores=8) == pytest.approx(_step_with_a_queue(compute, load, workers))


def test_without_workers_a_step_loads_and_computes() -> None:
    assert steady_step(1.0, 3.0, workers=0, cores=8) == 4.0


def test_more_workers_than_cores_load_no_faster() -> None:
    assert steady_step(1.0, 8.0, workers=8, cores=2) == steady_step(1.0, 8.0, workers=2, cores=8) == 4.0


@pytest.mark.parametrize(("load", "expected"), [(0.1, 1), (1.0, 1), (2.0, 2), (2.1, 3)])
def test_enough_workers_load_as_fast_as_steps_and_one_fewer_does_not(load: float, expected: int) -> None:
    needed = workers_needed(1.0, load)
    assert needed == expected
    assert steady_step(1.0, load, needed, cores=64) == 1.0
    assert needed == 1 or steady_step(1.0, load, needed - 1, cores=64) > 1.0


@pytest.mark.parametrize(("every_epochs", "every_steps"), [(1, -1), (5, -1), (3, 4), (7, 10)])
@pytest.mark.parametrize(("epochs", "steps"), [(1, 3), (2, 6), (10, 5), (11, 5)])
def test_checkpoints_are_those_that_vissl_writes(epochs: int, steps: int, every_epochs: int, every_steps: int) -> None:
    names = set()
    for epoch in range(epochs):  # the rule of vissl/utils/checkpoint.py:494
        for iteration in range(epoch * steps + 1, (epoch + 1) * steps + 1):
            if every_steps > 0 and iteration % every_steps == 0:
                names.add(f"iteration{iteration}")
        if epoch == epochs - 1:
            names.add("final")
        elif epoch % every_epochs == 0:
            names.add(f"phase{epoch}")
    assert checkpoints_kept(epochs, steps, every_epochs, every_steps) == len(names)


def test_a_run_is_the_sum_of_its_parts() -> None:
    total, steps, epochs = 30.0, 4, 3  # 30 s before the first epoch
    for _ in range(epochs):
        total += 5.0
        for _ in range(steps):
            total += 2.0
    assert run_seconds(steps, epochs, step=2.0, start=30.0, epoch=5.0, checkpoints=8.0) == total + 8.0


def test_the_batch_that_fits_is_the_last_whose_memory_is_below_the_share() -> None:
    static, per_sample, room = 1000, 130, 9000.0
    expected = 0
    while static + per_sample * (expected + 1) <= MEMORY_SHARE * room:
        expected += 1
    assert fitting_batch(static + 6 * per_sample, static, 6, room) == expected == 54


def test_nothing_fits_where_the_weights_alone_do_not() -> None:
    assert fitting_batch(peak=2000, static=1000, batch=2, room=1100) == 0


def test_shared_memory_holds_what_workers_have_ready_and_the_batch_in_use() -> None:
    assert shared_memory(batch_bytes=10, workers=8, ranks=4) == 4 * (8 * 2 * 10 + 10)
    assert shared_memory(batch_bytes=10, workers=0, ranks=4) == 0


@pytest.mark.parametrize("room", [0, 119, 120, 199, 200, 1000])
def test_the_most_workers_that_fit_do_and_one_more_does_not(room: int) -> None:
    most = workers_that_fit(batch_bytes=10, room=room, ranks=4)
    assert shared_memory(10, most, ranks=4) <= room
    assert shared_memory(10, most + 1, ranks=4) > room
