"""One epoch of a detector, and what it predicts afterwards."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from urllib.parse import quote

import torch
from torch import Tensor, nn

from vissl_jointssl.atomic_file import write_at_once
from vissl_jointssl.evaluation.detection.network import Detector
from vissl_jointssl.evaluation.metrics.boxes import ScoredBox

PREDICTIONS = "predictions"


def train_epoch(
    detector: Detector,
    optimizer: torch.optim.Optimizer,
    batches: Iterable[Sequence[tuple[Tensor, dict[str, Tensor]]]],
    rate: Callable[[int], float],
    clip_norm: float,
    device: torch.device,
) -> float:
    """Train on each batch once.

    Args:
        detector: The network.
        optimizer: Of its parameters that learn.
        batches: Images `(3, H, W)` with their targets, see `samples.training_target`.
        rate: Learning rate by the number of the step.
        clip_norm: Longest gradient; 0 for no limit.
        device: Of the network.

    Returns:
        Mean loss of the images; NaN as soon as a batch has a loss that is not finite, with the weights of before it.
    """
    detector.train()
    learned = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    total, count = 0.0, 0
    for step, batch in enumerate(batches):
        for group in optimizer.param_groups:
            group["lr"] = rate(step)
        targets = [{name: value.to(device) for name, value in target.items()} for _, target in batch]
        losses = detector([image.to(device) for image, _ in batch], targets)
        assert isinstance(losses, dict)
        loss = torch.stack(list(losses.values())).sum()
        value = float(loss.detach())
        if not math.isfinite(value):
            return math.nan
        optimizer.zero_grad()
        loss.backward()
        if clip_norm:
            nn.utils.clip_grad_norm_(learned, clip_norm)
        optimizer.step()
        total, count = total + value * len(batch), count + len(batch)
    return total / count


@torch.no_grad()
def predict(detector: Detector, images: Sequence[Tensor], device: torch.device) -> list[tuple[ScoredBox, ...]]:
    """The boxes in each image `(3, H, W)`, the highest score first, in its own pixels."""
    detector.eval()
    found = []
    for output in detector([image.to(device) for image in images]):
        labels = (output["labels"] - 1).tolist()  # 0 is the background
        edges, scores = output["boxes"].double().tolist(), output["scores"].double().tolist()
        found.append(
            tuple(
                ScoredBox(label, left, top, right, bottom, score)
                for label, (left, top, right, bottom), score in zip(labels, edges, scores, strict=True)
            )
        )
    return found


def write_predictions(predicted: Mapping[str, Sequence[ScoredBox]], folder: Path) -> None:
    """Write `<id>.json` of each image, with what could not stand in a file's name escaped as in a URL.

    A file holds a list of `{"label", "left", "top", "right", "bottom", "score"}`, one box a line, the highest score
    first: label and edges as in `manifest.Box`, in pixels of the image as its row has it, the score in [0, 1]. An empty
    list means that nothing was found.
    """
    for image, boxes in predicted.items():
        lines = ",\n".join(json.dumps(asdict(box)) for box in boxes)
        write_at_once(f"[\n{lines}\n]\n".encode(), folder / f"{quote(image, safe='')}.json")
