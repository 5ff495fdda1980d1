"""Task `classification_3d`: classes of volumes, by f_intra, f_inter and two fully connected layers that all train."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from vissl_jointssl.evaluation.best_epoch import SELECTIONS, BestEpoch
from vissl_jointssl.evaluation.classification.inputs import InputRecipe, LabelledInputs, batches
from vissl_jointssl.evaluation.classification.labels import class_faults, class_labels
from vissl_jointssl.evaluation.classification.network import VolumeClassifier
from vissl_jointssl.evaluation.classification.sampling import SAMPLINGS, draw_epoch, loss_weights
from vissl_jointssl.evaluation.encoders import build_joint_encoder, encoder_account, encoder_faults, slice_faults
from vissl_jointssl.evaluation.initialisation import Initialisation
from vissl_jointssl.evaluation.metrics.classes import class_auc, class_cases, class_metrics
from vissl_jointssl.evaluation.task import Job, Outcome
from vissl_jointssl.evaluation.training_loop import fit, seed_everything
from vissl_jointssl.manifest import Entry
from vissl_jointssl.models.joint_encoder import JointEncoder
from vissl_jointssl.spelling import nearest

SCHEDULES = ("constant", "cosine")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class VolumeClassification:
    """Options; the defaults are the paper's where it gives a number (epochs, batch, learning rate, layers).

    Attributes:
        epochs: Passes over what `sampling` draws.
        batch_size: Volumes a step.
        learning_rate: Of SGD.
        momentum: Of SGD; the paper names none, and at its learning rate 0.9 makes the loss jump.
        weight_decay: Of SGD.
        schedule: `constant` as in the paper, or `cosine` to zero.
        clip_norm: Largest norm of a step's gradient, as in stage 3; 0 does not clip.
        class_weights: Of the cross-entropy: None, `balanced`, or one number per class.
        sampling: `all` rows in each epoch, or `balanced`; see `sampling.draw_epoch`.
        ratio: Of `balanced`: rows of each other class per row of the smallest.
        select: `best`: the weights of the epoch with the best AUC on the validation rows, if there are any; or `last`.
        size: H and W that slices are resized to.
        slices: F; longer volumes lose slices at both ends, shorter ones are padded with slices that do not exist.
        channel: Of volumes with several.
        hidden: Width between the fully connected layers.
        preset: f_inter of starts that bring none: `paper` or `released`.
        levels: Slice embedding of these starts; None takes the preset's.
        workers: Processes that read; changes no number.

    Raises:
        ValueError: With every value that is out of its limits.
    """

    main_metric: ClassVar[str] = "auc"
    kinds: ClassVar[tuple[str, ...]] = ("volume",)

    epochs: int = 100
    batch_size: int = 8
    learning_rate: float = 0.1
    momentum: float = 0.0
    weight_decay: float = 0.0
    schedule: str = "constant"
    clip_norm: float = 2.0
    class_weights: str | tuple[float, ...] | None = None
    sampling: str = "all"
    ratio: float = 1.0
    select: str = "best"
    size: tuple[int, int] = (64, 64)
    slices: int = 64
    channel: int = 0
    hidden: int = 252
    preset: str = "paper"
    levels: tuple[str, ...] | None = None
    workers: int = field(default=0, repr=False)  # not in repr(), so that a finished run of other workers is kept

    def __post_init__(self) -> None:
        faults = []
        for name in ("epochs", "batch_size", "hidden", "learning_rate", "ratio"):
            if not getattr(self, name) > 0:
                faults.append(f"{name} is {getattr(self, name)}, expected above 0")
        for name in ("weight_decay", "clip_norm", "workers"):
            if not getattr(self, name) >= 0:
                faults.append(f"{name} is {getattr(self, name)}, expected 0 or more")
        if not 0 <= self.momentum < 1:
            faults.append(f"momentum is {self.momentum}, expected from 0 to below 1")
        for name, known in (("schedule", SCHEDULES), ("sampling", SAMPLINGS), ("select", SELECTIONS)):
            if getattr(self, name) not in known:
                faults.append(f"{name} is {getattr(self, name)!r}{nearest(str(getattr(self, name)), known)}")
        weights = self.class_weights
        if isinstance(weights, str) and weights != "balanced":
            faults.append(f"class_weights is {weights!r}, expected balanced, or a number per class")
        if isinstance(weights, tuple) and not all(isinstance(w, int | float) and w > 0 for w in weights):
            faults.append(f"class_weights is {weights}, expected numbers above 0")
        try:
            self.inputs()
        except ValueError as error:
            faults.append(str(error))
        if faults:
            raise ValueError("; ".join(faults))

    def inputs(self) -> InputRecipe:
        """How a row becomes an input."""
        return InputRecipe(self.size, self.slices, self.channel)

    def is_labelled(self, entry: Entry) -> bool:
        """Whether a row has a class."""
        return entry.label is not None

    def faults(self, job: Job) -> list[str]:
        """What makes the data or the start unusable, in words."""
        found = class_faults(job) + self.inputs().faults((*job.train, *job.validation, *job.test))
        classes = sorted({entry.label or 0 for entry in job.train})
        if isinstance(self.class_weights, tuple) and len(self.class_weights) != len(classes):
            found.append(f"options.class_weights has {len(self.class_weights)} numbers for {len(classes)} classes")
        validated = {entry.label or 0 for entry in job.validation}
        if self.select == "best" and validated and validated != set(classes):
            found.append(
                f"the {len(job.validation)} validation rows have only the classes {sorted(validated)}, so "
                "their AUC is undefined; set options.select=last"
            )
        found += slice_faults(job.initialisation, self.slices)
        found += encoder_faults(job.initialisation, self._encoder)
        return found

    def run(self, job: Job) -> Outcome:
        """Train and test."""
        seed_everything(job.seed)
        labels = class_labels(job.train).tolist()
        classes = max(labels) + 1
        encoder = self._encoder(job.initialisation)
        _log.info(encoder_account(job.initialisation, encoder))
        model = VolumeClassifier(encoder, classes, self.hidden).to(job.device)
        optimizer = torch.optim.SGD(
            model.parameters(), lr=self.learning_rate, momentum=self.momentum, weight_decay=self.weight_decay
        )
        weights = loss_weights(labels, classes, self.class_weights)
        weights = None if weights is None else weights.to(job.device)
        inputs = LabelledInputs(job.manifest, job.train, self.inputs())
        best = BestEpoch()
        selecting = self.select == "best" and bool(job.validation)

        def run_epoch(epoch: int) -> float:
            _set_learning_rate(optimizer, self.learning_rate * self._share(epoch))
            order = draw_epoch(labels, self.sampling, self.ratio)
            model.train()
            total = 0.0
            for volumes, targets in batches(inputs, order, self.batch_size, self.workers):
                logits = model(volumes.to(job.device))
                loss = functional.cross_entropy(logits, targets.to(job.device), weight=weights)
                optimizer.zero_grad()
                loss.backward()
                if self.clip_norm:
                    nn.utils.clip_grad_norm_(model.parameters(), self.clip_norm)
                optimizer.step()
                total += float(loss.detach()) * len(targets)
                if not math.isfinite(total):
                    return total  # `fit` stops here; the rest of the epoch would only take time
            if selecting:
                validated = self._probabilities(job, model, job.validation)
                best.offer(epoch, class_auc(validated, class_labels(job.validation)), model)
            return total / len(order)

        parts = {"model": model, "optimizer": optimizer, "best": best}
        losses = fit(run_epoch, self.epochs, parts, job.folder, job.seed, job.progress)
        best.restore(model)
        if selecting:
            _log.info("%s: epoch %s has the best validation AUC, %.3f", job.folder, best.epoch, best.score)
        probabilities = self._probabilities(job, model, job.test)
        truth = class_labels(job.test)
        cases = class_cases([entry.id for entry in job.test], probabilities, truth)
        return Outcome(class_metrics(probabilities, truth), cases, losses)

    def _encoder(self, start: Initialisation) -> JointEncoder:
        return build_joint_encoder(start, preset=self.preset, levels=self.levels, slices=self.slices)

    def _share(self, epoch: int) -> float:
        """Of the learning rate."""
        return 1.0 if self.schedule == "constant" else (1 + math.cos(math.pi * epoch / self.epochs)) / 2

    @torch.no_grad()
    def _probabilities(self, job: Job, model: nn.Module, entries: Sequence[Entry]) -> np.ndarray:
        """`(rows, classes)` in the order of the rows."""
        model.eval()
        inputs = LabelledInputs(job.manifest, entries, self.inputs())
        found = [
            model(volumes.to(job.device)).double().softmax(dim=1).cpu().numpy()
            for volumes, _ in batches(inputs, range(len(entries)), self.batch_size, self.workers)
        ]
        return np.concatenate(found)


def _set_learning_rate(optimizer: torch.optim.Optimizer, value: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = value
