"""Boxes around findings in images, by a Faster R-CNN (the paper's VinDr-CXR).

The paper: MMDetection's Faster R-CNN with its defaults, SGD with 0.1 for 30 epochs and 0.01 for 10, since 0.001 gave
NaN. Ours is torchvision's with MMDetection's values where they differ: momentum 0.9, weight decay 0.0001, learning rate
rising over the first 500 steps, images mirrored half of the time, stem and first layer frozen and BatchNorm with the
statistics of the weights file (`batchnorm`). The norm of the gradient is limited (`clip_norm`), which MMDetection's is
not: with 0.1, five times its default, one bad batch is enough for NaN.

With validation rows the epoch with the highest `ap50` on them is tested, without them or with `select: last` the last.

Every test image leaves its boxes in the folder of the run, see `training.write_predictions`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from vissl_jointssl.evaluation.best_epoch import SELECTIONS, BestEpoch
from vissl_jointssl.evaluation.detection.network import ALL_LAYERS, BATCHNORMS, Detector, build_detector
from vissl_jointssl.evaluation.detection.samples import (
    batched,
    image_tensor,
    label_faults,
    training_sample,
    true_boxes,
)
from vissl_jointssl.evaluation.detection.training import PREDICTIONS, predict, train_epoch, write_predictions
from vissl_jointssl.evaluation.metrics.boxes import ScoredBox, score_boxes
from vissl_jointssl.evaluation.task import Job, Outcome
from vissl_jointssl.evaluation.training_loop import fit
from vissl_jointssl.manifest import Entry
from vissl_jointssl.spelling import nearest

_LEVELS = 5  # of the feature pyramid


@dataclass(frozen=True)
class ImageDetection:
    """The task `detection_2d`.

    Attributes:
        epochs: How often each training image is seen.
        learning_rate: Of SGD, after the warm-up and before `drop_epoch`.
        drop_epoch: From this epoch on, counted from 0, the learning rate is a tenth.
        warmup_steps: Over which the learning rate rises from a thousandth.
        momentum, weight_decay: Of SGD.
        clip_norm: Longest gradient of a step; 0 for no limit.
        batch_size: Images of a step.
        min_size, max_size: An image is scaled until its short side has the one or its long side the other; in pixels.
        anchor_sizes: Side of the anchors for each of the five levels, in pixels of the scaled image.
        trainable_layers: How many of layer4, layer3, layer2, layer1 and the stem learn. A random start trains all.
        batchnorm: `frozen` or `training`, see `network.Detector`. A random start has `training`.
        mirror: Exchange left and right of half of the training images.
        boxes_from_labels: Rows without boxes get those around the instances of their label map, all of class 0.
        classes: Names of the classes, for metrics `ap50_<name>`; without it they are called by their numbers.
        detections: Boxes of an image at most, in predicting and in scoring; COCO's is 100.
        score_threshold: Of the boxes that the metric `f1` counts.
        select: `best` or `last` epoch.
        box_samples: Proposals of a training image that the box head learns from; its two layers cost more than the rest
            of a small image.

    Raises:
        ValueError: With every option that is out of its limits.
    """

    main_metric: ClassVar[str] = "ap50"
    kinds: ClassVar[tuple[str, ...]] = ("image",)
    epochs: int = 40
    learning_rate: float = 0.1
    drop_epoch: int = 30
    warmup_steps: int = 500
    momentum: float = 0.9
    weight_decay: float = 1e-4
    clip_norm: float = 10.0
    batch_size: int = 8
    min_size: int = 512
    max_size: int = 512
    anchor_sizes: tuple[int, ...] = (32, 64, 128, 256, 512)
    trainable_layers: int = 3
    batchnorm: str = "frozen"
    mirror: bool = True
    boxes_from_labels: bool = False
    classes: tuple[str, ...] = ()
    detections: int = 100
    score_threshold: float = 0.5
    select: str = "best"
    box_samples: int = 512

    def __post_init__(self) -> None:
        limits: dict[str, tuple[float, float]] = {
            "epochs": (1, math.inf),
            "drop_epoch": (0, math.inf),
            "warmup_steps": (0, math.inf),
            "momentum": (0, 0.9999),
            "weight_decay": (0, 1),
            "clip_norm": (0, math.inf),
            "batch_size": (1, math.inf),
            "min_size": (32, self.max_size),
            "trainable_layers": (0, ALL_LAYERS),
            "detections": (1, math.inf),
            "score_threshold": (0, 1),
            "box_samples": (1, math.inf),
        }
        faults = [
            f"{name} is {getattr(self, name)}, expected {low:g} to {high:g}"
            for name, (low, high) in limits.items()
            if not low <= getattr(self, name) <= high
        ]
        if not self.learning_rate > 0:
            faults.append(f"learning_rate is {self.learning_rate}, expected a number above 0")
        if len(self.anchor_sizes) != _LEVELS or min(self.anchor_sizes) <= 0:
            faults.append(
                f"anchor_sizes is {self.anchor_sizes}, expected a side in pixels for each of {_LEVELS} levels"
            )
        for name, known in (("batchnorm", BATCHNORMS), ("select", SELECTIONS)):
            if getattr(self, name) not in known:
                faults.append(f"{name} is {getattr(self, name)!r}{nearest(str(getattr(self, name)), known)}")
        if len(set(self.classes)) < len(self.classes):
            faults.append(f"two of classes have the same name: {', '.join(self.classes)}")
        if faults:
            raise ValueError("; ".join(faults))

    def is_labelled(self, entry: Entry) -> bool:
        """Whether a row has boxes, () counting as some, or a label map where boxes are made of it."""
        return entry.boxes_path is not None or (self.boxes_from_labels and entry.label_path is not None)

    def faults(self, job: Job) -> list[str]:
        """Rows whose boxes cannot be used, classes without a name, and training rows that hold no box at all."""
        known = len(self.classes) or None
        rows = (*job.train, *job.validation, *job.test)
        faults = label_faults(job.manifest, rows, self.boxes_from_labels, known)
        if not faults and not any(true_boxes(job.manifest, row, self.boxes_from_labels) for row in job.train):
            faults.append(
                f"none of the {len(job.train)} training rows has a box; give a larger fraction, or label more"
            )
        return faults

    def run(self, job: Job) -> Outcome:
        """Train, keep the best epoch or the last, and test."""
        names = self._names(job)
        detector = build_detector(
            job.initialisation,
            len(names),
            (self.min_size, self.max_size),
            self.anchor_sizes,
            self.trainable_layers,
            self.batchnorm,
            self.detections,
            self.box_samples,
        ).to(job.device)
        learned = [parameter for parameter in detector.parameters() if parameter.requires_grad]
        optimizer = torch.optim.SGD(learned, self.learning_rate, self.momentum, weight_decay=self.weight_decay)
        best = BestEpoch()

        def run_epoch(epoch: int) -> float:
            loss = self._train(job, detector, optimizer, epoch)
            if self.select == "best" and job.validation and math.isfinite(loss):
                metrics, _ = self._score(job, job.validation, self._predict(job, detector, job.validation), names)
                best.offer(epoch, metrics["ap50"], detector)
            return loss

        parts = {"model": detector, "optimizer": optimizer, "best": best}
        losses = fit(run_epoch, self.epochs, parts, job.folder, job.seed, job.progress)
        best.restore(detector)
        predicted = self._predict(job, detector, job.test)
        write_predictions(predicted, job.folder / PREDICTIONS)
        metrics, cases = self._score(job, job.test, predicted, names)
        return Outcome(metrics, cases, losses)

    def _names(self, job: Job) -> tuple[str, ...]:
        """Of every class of the data, so that a fraction that lacks one is scored on the same classes."""
        if self.classes:
            return self.classes
        rows = (*job.manifest.select("image"), *job.train, *job.validation, *job.test)
        labelled = dict.fromkeys(row for row in rows if self.is_labelled(row))
        found = [box.label for row in labelled for box in true_boxes(job.manifest, row, self.boxes_from_labels)]
        return tuple(str(number) for number in range(max(found) + 1))

    def rate(self, epoch: int, step: int) -> float:
        """Learning rate of a step, counted from 0 over all epochs."""
        rate = self.learning_rate * (0.1 if epoch >= self.drop_epoch else 1.0)
        if step < self.warmup_steps:
            rate *= 0.001 + 0.999 * step / self.warmup_steps
        return rate

    def _train(self, job: Job, detector: Detector, optimizer: torch.optim.Optimizer, epoch: int) -> float:
        order = torch.randperm(len(job.train)).tolist()
        groups = batched([job.train[number] for number in order], self.batch_size)
        batches = (
            [training_sample(job.manifest, row, self.boxes_from_labels, self.mirror) for row in rows] for rows in groups
        )
        first = epoch * math.ceil(len(order) / self.batch_size)
        return train_epoch(
            detector, optimizer, batches, lambda step: self.rate(epoch, first + step), self.clip_norm, job.device
        )

    def _predict(self, job: Job, detector: Detector, rows: Sequence[Entry]) -> dict[str, tuple[ScoredBox, ...]]:
        found: dict[str, tuple[ScoredBox, ...]] = {}
        for group in batched(rows, self.batch_size):
            images = [image_tensor(job.manifest, row) for row in group]
            boxes = predict(detector, images, job.device)
            found |= dict(zip((row.id for row in group), boxes, strict=True))
        return found

    def _score(
        self, job: Job, rows: Sequence[Entry], predicted: dict[str, tuple[ScoredBox, ...]], names: Sequence[str]
    ) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
        truth = {row.id: true_boxes(job.manifest, row, self.boxes_from_labels) for row in rows}
        return score_boxes(truth, predicted, names, self.detections, self.score_threshold)
