"""One stage of a recipe: what was measured of it, and what follows for all of its steps and for other machines."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vissl_jointssl.training.estimates import (
    checkpoints_kept,
    fitting_batch,
    run_seconds,
    shared_memory,
    steady_step,
    steps_per_epoch,
    workers_needed,
    workers_that_fit,
)
from vissl_jointssl.training.free_room import Room


@dataclass(frozen=True)
class StageEstimate:
    """What a stage takes; seconds and bytes. The README of these keys, in `--json`, is docs/scaling.md.

    `batch`, `workers`, `peak` and `images_per_step` are those of one rank. `batch_wanted` is the config's where `batch`
    is smaller, because that one found no memory. None: this system does not tell.
    """

    config: str
    device: str
    ranks: int
    samples: int
    epochs: int
    batch: int
    batch_wanted: int
    largest_batch: int | None
    steps_per_epoch: int
    measured_steps: int
    step: float
    wait_share: float
    images_per_second: float
    peak: int | None
    room: int | None
    seconds: float
    checkpoint: int
    checkpoints: int
    cache: int
    shared_memory: int
    workers: int
    workers_needed: int
    workers_suggested: int
    seconds_at: Mapping[int, float | None]


def estimate_stage(
    config: str, measured: Mapping[str, Any], room: Room, cache: int, sizes: tuple[int, ...], wanted: int | None = None
) -> StageEstimate:
    """What follows from the file of `StepMeasuresHook`, whose keys are told there.

    Args:
        config: The stage's.
        measured: The file.
        room: What the machine has free.
        cache: Bytes of the stage's prepared data.
        sizes: Numbers of ranks to say the time for.
        wanted: The config's batch, where a smaller one was measured.
    """
    facts, ranks = measured["facts"], measured["ranks"]
    batch, workers, samples = facts["batch"], facts["workers"], facts["samples"]
    taken = list(zip(measured["steps"], measured["waits"], strict=True))
    taken = taken[facts["warm_up"] :] or taken[-1:]
    compute = statistics.median(step - wait for step, wait in taken)
    load = batch * measured["sample"]
    cores = room.cores / ranks
    step = steady_step(compute, load, workers, cores)
    grows = samples / (facts["measured_samples"] or samples)  # memories and k-means, with the data set

    def seconds(of_ranks: int) -> float | None:
        steps = steps_per_epoch(samples, batch, of_ranks, facts["drop_last"])
        if not steps:
            return None
        return run_seconds(
            steps,
            facts["epochs"],
            step=step,
            start=measured["start"] * grows * ranks / of_ranks,
            epoch=measured["epoch_hooks"] * grows + measured["first_batch"],
            checkpoints=_kept(facts, steps) * measured["checkpoint"],
        )

    steps = steps_per_epoch(samples, batch, ranks, facts["drop_last"])
    memory = measured["room"] or (None if room.memory is None else room.memory // ranks)
    peak, static = measured["peak"], measured["static"]
    largest = None if peak is None or memory is None else max(batch, fitting_batch(peak, static, batch, memory))
    needed = workers_needed(compute, load)
    suggested = max(1, min(needed, int(cores)))
    if room.shared_memory is not None:
        suggested = min(suggested, workers_that_fit(measured["batch_bytes"], room.shared_memory, ranks))
    return StageEstimate(
        config=config,
        device=measured["device"],
        ranks=ranks,
        samples=samples,
        epochs=facts["epochs"],
        batch=batch,
        batch_wanted=wanted or batch,
        largest_batch=largest,
        steps_per_epoch=steps,
        measured_steps=len(taken),
        step=step,
        wait_share=1 - compute / step,
        images_per_second=measured["batch_images"] * ranks / step,
        peak=peak,
        room=memory,
        seconds=seconds(ranks) or 0.0,
        checkpoint=measured["checkpoint_bytes"],
        checkpoints=_kept(facts, steps),
        cache=cache,
        shared_memory=shared_memory(measured["batch_bytes"], workers, ranks),
        workers=workers,
        workers_needed=needed,
        workers_suggested=suggested,
        seconds_at={size: seconds(size) for size in sizes},
    )


def stage_problems(estimate: StageEstimate, room: Room) -> list[str]:
    """What will not work, each with the next step."""
    found = []
    if estimate.batch < estimate.batch_wanted:
        found.append(
            f"{estimate.config}: a batch of {estimate.batch_wanted} finds no memory; "
            f"{estimate.largest_batch or estimate.batch} should fit: lower config.DATA.TRAIN.BATCHSIZE_PER_REPLICA, or "
            "in stages 2 and 3 keep the batch and set +config.JOINT_SSL.MICRO_BATCHES=n"
        )
    if room.shared_memory is not None and estimate.shared_memory > room.shared_memory:
        found.append(
            f"{estimate.config}: {estimate.workers} workers a rank fill {show_bytes(estimate.shared_memory)} of "
            f"/dev/shm, and {show_bytes(room.shared_memory)} are free: set config.DATA.NUM_DATALOADER_WORKERS="
            f"{estimate.workers_suggested}, or enlarge it (docker run --shm-size=8g)"
        )
    return found


def stage_advice(estimate: StageEstimate, room: Room) -> list[str]:
    """What would work better, or is less certain than it looks."""
    found = []
    cores = max(1, room.cores // estimate.ranks)
    if estimate.workers < estimate.workers_needed <= cores:
        found.append(
            f"{estimate.config}: a step will wait for data {estimate.wait_share:.0%} of the time; set "
            f"config.DATA.NUM_DATALOADER_WORKERS={estimate.workers_suggested}"
        )
    if estimate.workers_needed > cores:
        found.append(
            f"{estimate.config}: loading keeps {estimate.workers_needed} cores busy for each rank, and there are "
            f"{cores}: a step will wait for data about {estimate.wait_share:.0%} of the time"
        )
    if estimate.measured_steps < 2:
        found.append(f"{estimate.config}: the whole run has too few steps to measure two warm ones")
    return found


def show_bytes(count: float) -> str:
    """`3.1 GiB`, `640 MiB`."""
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"


def _kept(facts: Mapping[str, Any], steps: int) -> int:
    return checkpoints_kept(facts["epochs"], steps, facts["checkpoint_every_epochs"], facts["checkpoint_every_steps"])
