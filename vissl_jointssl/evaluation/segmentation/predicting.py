"""Masks of a whole row, slice by slice, on the grid of its array."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from vissl_jointssl.evaluation.segmentation.inputs import read_input, read_truth, resized
from vissl_jointssl.evaluation.segmentation.options import SegmentationOptions
from vissl_jointssl.evaluation.segmentation.slices import Sample
from vissl_jointssl.evaluation.segmentation.targets import Targets
from vissl_jointssl.evaluation.task import Job
from vissl_jointssl.manifest import Entry


@torch.no_grad()
def predict(
    network: nn.Module, entry: Entry, targets: Targets, options: SegmentationOptions, job: Job, channel: int = 0
) -> np.ndarray:
    """Predict a volume's slices and merge them, or an image.

    Probabilities, not masks, are brought from the network's size to the array's; then each voxel is decided.

    Args:
        network: On the job's device; put into eval mode.
        entry: The row.
        targets: What the network was trained for.
        options: Of the task.
        job: Of the run.
        channel: See `read_input`.

    Returns:
        Boolean `(n, F, H, W)` of a volume, `(n, H, W)` of an image.
    """
    network.eval()
    depth = entry.grid_shape[0] if entry.kind == "volume" else 1
    height, width = entry.grid_shape[-2:]
    merged = np.empty((len(targets.numbers), depth, height, width), dtype=bool)
    for start in range(0, depth, options.batch_size):
        samples = [Sample(entry, number) for number in range(start, min(start + options.batch_size, depth))]
        pictures = torch.stack([read_input(job.manifest, sample, channel) for sample in samples]).to(job.device)
        logits: Tensor = network(resized(pictures, (options.size, options.size)))
        chosen = targets.decide(resized(logits.sigmoid(), (height, width)))  # (b, n, H, W)
        merged[:, start : start + len(samples)] = chosen.transpose(0, 1).cpu().numpy()
    return merged if entry.kind == "volume" else merged[:, 0]


def predict_all(
    network: nn.Module,
    rows: Sequence[Entry],
    targets: Targets,
    options: SegmentationOptions,
    job: Job,
    channel: int = 0,
) -> Iterator[tuple[Entry, np.ndarray, np.ndarray]]:
    """Each row with its prediction and its truth, one in memory at a time; see `predict`."""
    for entry in rows:
        yield entry, predict(network, entry, targets, options, job, channel), read_truth(job.manifest, entry, targets)
