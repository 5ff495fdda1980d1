"""Training of the U-Net, epoch by epoch, with the best one kept."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor, nn
from torch.optim import SGD

from vissl_jointssl.evaluation.best_epoch import BestEpoch
from vissl_jointssl.evaluation.segmentation.inputs import read_input, read_masks, resized, resized_masks
from vissl_jointssl.evaluation.segmentation.losses import dice_and_cross_entropy
from vissl_jointssl.evaluation.segmentation.options import SegmentationOptions
from vissl_jointssl.evaluation.segmentation.slices import Pools, Sample
from vissl_jointssl.evaluation.segmentation.targets import Targets
from vissl_jointssl.evaluation.task import Job
from vissl_jointssl.evaluation.training_loop import fit
from vissl_jointssl.manifest import Manifest

_POWER = 0.9  # of the polynomial schedule
_READERS = 4  # batches that are read while the network is busy

Batch = tuple[tuple[Sample, ...], Tensor]  # and which of them are flipped, `(b, 2)`: along H, along W


def train(
    network: nn.Module,
    pools: Pools,
    targets: Targets,
    options: SegmentationOptions,
    job: Job,
    validate: Callable[[], float] | None,
    *,
    background_share: float = 0.0,
    channel: int = 0,
) -> tuple[float, ...]:
    """Train on the slices of two pools; the network ends with the weights of its best epoch, or of its last (`select`).

    Args:
        network: On the job's device.
        pools: See `Pools`.
        targets: What is learned.
        options: Of the task.
        job: Of the run.
        validate: Main metric on the validation rows, after each epoch; None where there are none.
        background_share: See `Pools.draw`.
        channel: See `read_input`.

    Returns:
        Mean loss of each epoch.

    Raises:
        FloatingPointError: See `fit`.
    """
    optimizer = SGD(
        network.parameters(), options.learning_rate, momentum=options.momentum, weight_decay=options.weight_decay
    )
    best = BestEpoch()

    def load(batch: Batch) -> tuple[Tensor, Tensor]:
        return _load(batch, job.manifest, targets, options.size, channel)

    def run_epoch(epoch: int) -> float:
        network.train()
        drawn = pools.draw(background_share, options.samples_per_epoch)
        batches = _batches(drawn, options)
        total = torch.zeros((), device=job.device)
        for number, (pictures, masks) in enumerate(_read_ahead(batches, load)):
            for group in optimizer.param_groups:
                group["lr"] = _rate(options, (epoch + number / len(batches)) / options.epochs)
            loss = dice_and_cross_entropy(network(pictures.to(job.device)), masks.to(job.device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.detach() * len(pictures)
        if validate is not None and options.select == "best":
            best.offer(epoch, validate(), network)
        return float(total) / len(drawn)

    parts = {"network": network, "optimizer": optimizer, "best": best}
    losses = fit(run_epoch, options.epochs, parts, job.folder, job.seed, job.progress)
    best.restore(network)
    return losses


def _rate(options: SegmentationOptions, done: float) -> float:
    """The learning rate when a share of the training is done."""
    return options.learning_rate * ((1 - done) ** _POWER if options.schedule == "polynomial" else 1.0)


def _batches(drawn: Sequence[Sample], options: SegmentationOptions) -> list[Batch]:
    """Batches of one size; a last one of a single sample joins the one before it, for BatchNorm needs two."""
    starts = list(range(0, len(drawn), options.batch_size))
    if len(starts) > 1 and len(drawn) - starts[-1] == 1:
        starts.pop()
    batches = []
    for start, end in zip(starts, [*starts[1:], len(drawn)], strict=True):
        flips = torch.rand(end - start, 2) < (0.5 if options.augment == "flip" else 0.0)
        batches.append((tuple(drawn[start:end]), flips))
    return batches


def _load(batch: Batch, manifest: Manifest, targets: Targets, size: int, channel: int) -> tuple[Tensor, Tensor]:
    """Pictures `(b, 3, size, size)` and their masks `(b, n, size, size)`."""
    pictures, masks = [], []
    for sample, flip in zip(*batch, strict=True):
        axes = [axis for axis, flipped in zip((-2, -1), flip.tolist(), strict=True) if flipped]
        picture = resized(read_input(manifest, sample, channel)[None], (size, size))
        mask = resized_masks(read_masks(manifest, sample, targets)[None], (size, size))
        pictures.append(picture.flip(axes))
        masks.append(mask.flip(axes))
    return torch.cat(pictures), torch.cat(masks)


def _read_ahead(
    batches: Sequence[Batch], load: Callable[[Batch], tuple[Tensor, Tensor]]
) -> Iterator[tuple[Tensor, Tensor]]:
    """The loaded batches in order. Nothing is drawn in the threads, so their pace changes no result."""
    waiting: deque[Future[tuple[Tensor, Tensor]]] = deque()
    with ThreadPoolExecutor(_READERS) as readers:
        for batch in batches:
            waiting.append(readers.submit(load, batch))
            if len(waiting) > _READERS:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
