"""What a stage will take, from what a few steps of it took: arithmetic alone. Seconds and bytes."""

from __future__ import annotations

import math

MEMORY_SHARE = 0.9  # of what is free: allocators need slack


def steps_per_epoch(samples: int, batch: int, ranks: int, drop_last: bool) -> int:
    """Steps of an epoch; a rank's share is rounded up, as PyTorch's sampler does.

    Args:
        samples: N.
        batch: Of a rank.
        ranks: In all.
        drop_last: Whether a batch that is not full is left out.
    """
    share = math.ceil(samples / ranks)
    return share // batch if drop_last else math.ceil(share / batch)


def steady_step(compute: float, load: float, workers: int, cores: float) -> float:
    """Seconds of a step in the long run; the first ones live on batches loaded before.

    Args:
        compute: A step without its wait for data.
        load: One batch in one worker.
        workers: Of a rank; 0 loads between steps.
        cores: That a rank's workers can have.
    """
    if workers == 0:
        return compute + load
    return max(compute, load / min(workers, max(1.0, cores)))


def workers_needed(compute: float, load: float) -> int:
    """Workers of a rank that load batches as fast as steps take them."""
    return max(1, math.ceil(load / compute))


def run_seconds(steps: int, epochs: int, *, step: float, start: float, epoch: float, checkpoints: float) -> float:
    """A stage from its first step to its last.

    Args:
        steps: Of an epoch.
        epochs: How many.
        step: Seconds.
        start: Before the first epoch, once.
        epoch: Beside its steps, each time.
        checkpoints: To write all of them.
    """
    return start + epochs * (steps * step + epoch) + checkpoints


def checkpoints_kept(epochs: int, steps: int, every_epochs: int, every_steps: int) -> int:
    """Files that a stage leaves: nothing is deleted. One after epoch 0 and every so many more, and the final one.

    Args:
        epochs: How many.
        steps: Of an epoch.
        every_epochs: `CHECKPOINT_FREQUENCY`.
        every_steps: `CHECKPOINT_ITER_FREQUENCY`; none within epochs if it is not positive.
    """
    at_epochs = math.ceil((epochs - 1) / abs(every_epochs))  # 0, n, 2n, ... before the last
    return at_epochs + 1 + (epochs * steps // every_steps if every_steps > 0 else 0)


def fitting_batch(peak: int, static: int, batch: int, room: float) -> int:
    """The largest batch of a rank whose peak fits: memory grows by the same for each sample, from what is always there.

    Args:
        peak: At the measured batch.
        static: Weights, gradients and optimizer.
        batch: As measured.
        room: What a rank can have; `MEMORY_SHARE` of it is given out.
    """
    free = MEMORY_SHARE * room - static
    if free <= 0:
        return 0
    per_sample = (peak - static) / batch
    return math.floor(free / per_sample) if per_sample > 0 else batch


def shared_memory(batch_bytes: int, workers: int, ranks: int, prefetch: int = 2) -> int:
    """Bytes of /dev/shm that the loaders of one node fill: what workers hold ready, and the batch in use.

    Args:
        batch_bytes: A rank's batch.
        workers: Of a rank; without any, nothing goes through shared memory.
        ranks: On the node.
        prefetch: Batches that a worker has ready, 2 in PyTorch.
    """
    return ranks * batch_bytes * (workers * prefetch + 1) if workers else 0


def workers_that_fit(batch_bytes: int, room: int, ranks: int, prefetch: int = 2) -> int:
    """The most workers of a rank whose batches have room in /dev/shm; 0 where not one has."""
    return max(0, (room // (ranks * batch_bytes) - 1) // prefetch)
