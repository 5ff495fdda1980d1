"""Task `probe`: what frozen features know, by a linear classifier and by the nearest neighbours."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import astuple, dataclass, field
from typing import ClassVar

from vissl_jointssl.evaluation.classification.inputs import InputRecipe, LabelledInputs
from vissl_jointssl.evaluation.classification.labels import class_faults, class_labels
from vissl_jointssl.evaluation.encoders import (
    build_joint_encoder,
    build_slice_encoder,
    encoder_account,
    encoder_faults,
    slice_faults,
)
from vissl_jointssl.evaluation.frozen_features import frozen_features
from vissl_jointssl.evaluation.initialisation import Initialisation
from vissl_jointssl.evaluation.metrics.classes import class_cases, class_metrics
from vissl_jointssl.evaluation.probe_classifiers import (
    C_GRID,
    Samples,
    choose_c,
    linear_probabilities,
    neighbour_probabilities,
    standardised,
)
from vissl_jointssl.evaluation.task import Job, Outcome
from vissl_jointssl.evaluation.training_loop import seed_everything
from vissl_jointssl.manifest import Entry
from vissl_jointssl.models.joint_encoder import JointEncoder
from vissl_jointssl.models.slice_encoder import PAPER_LEVELS
from vissl_jointssl.models.valid_slices import valid_slices
from vissl_jointssl.spelling import nearest

OF = ("slices", "volumes")
WITHOUT_VOLUME_ENCODER = ("mean", "random")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Probe:
    """Options.

    * `of: slices`: f_intra's multi-level embedding of every slice and image. A slice carries its volume's class; the
      metrics count slices, a case is a row, with the mean of its slices.
    * `of: volumes`: Z, by f_intra and f_inter. For a start without f_inter, see `without_volume_encoder`.

    Each kind of classifier has its own metrics, `linear_auc`, `knn_auc` and so on. Nothing is trained but the linear
    classifier, whose solution is unique, so seeds differ only in what is random: weights of a start that lacks them,
    and the rows of a fraction below 1.

    Attributes:
        of: `slices` or `volumes`.
        c: Strengths of the linear classifier (scikit-learn's C) to choose from: by log loss on the validation rows, or
            without any on patients left out of the training rows.
        k: Nearest neighbours by cosine, each with one vote.
        balanced: Whether the linear classifier weighs classes inversely to their shares.
        size: H and W that slices are resized to.
        slices: Of volumes, F, the middle ones; of `slices`, how many of each volume, at equal distances.
        channel: Of volumes with several.
        levels: Slice embedding of `slices`, and of volumes of starts without f_inter.
        without_volume_encoder: `mean` of the slice embeddings, which asks nothing of random weights; or `random`
            f_inter of the paper.
        batch_size: Volumes or images at once; changes numbers only by rounding.
        workers: Processes that read; changes no number.

    Raises:
        ValueError: With every value that is out of its limits.
    """

    main_metric: ClassVar[str] = "linear_auc"
    kinds: ClassVar[tuple[str, ...]] = ("volume", "image")

    of: str = "slices"
    c: tuple[float, ...] = C_GRID
    k: int = 20
    balanced: bool = False
    size: tuple[int, int] = (64, 64)
    slices: int = 64
    channel: int = 0
    levels: tuple[str, ...] = PAPER_LEVELS
    without_volume_encoder: str = "mean"
    batch_size: int = field(default=8, repr=False)
    workers: int = field(default=0, repr=False)

    def __post_init__(self) -> None:
        faults = []
        for name, known in (("of", OF), ("without_volume_encoder", WITHOUT_VOLUME_ENCODER)):
            if getattr(self, name) not in known:
                faults.append(f"{name} is {getattr(self, name)!r}{nearest(str(getattr(self, name)), known)}")
        for name in ("k", "batch_size"):
            if getattr(self, name) < 1:
                faults.append(f"{name} is {getattr(self, name)}, expected at least 1")
        if not isinstance(self.c, tuple) or not self.c or not all(strength > 0 for strength in self.c):
            faults.append(f"c is {self.c!r}, expected strengths above 0 such as [0.01, 1]")
        try:
            self.inputs()
        except ValueError as error:
            faults.append(str(error))
        if faults:
            raise ValueError("; ".join(faults))

    def inputs(self) -> InputRecipe:
        """How a row becomes an input."""
        return InputRecipe(self.size, self.slices, self.channel, spread=self.of == "slices")

    def is_labelled(self, entry: Entry) -> bool:
        """Whether a row has a class; an image is no volume."""
        return entry.label is not None and (entry.kind == "volume" or self.of == "slices")

    def faults(self, job: Job) -> list[str]:
        """What makes the data or the start unusable, in words."""
        found = class_faults(job) + self.inputs().faults((*job.train, *job.validation, *job.test))
        samples = sum(self._samples(entry) for entry in job.train)
        if samples < self.k:
            found.append(f"{samples} training {self.of} are fewer than options.k={self.k}; set options.k={samples}")
        if self.of == "volumes":
            found += slice_faults(job.initialisation, self.slices)
        found += encoder_faults(job.initialisation, self._encoder)
        return found

    def run(self, job: Job) -> Outcome:
        """Extract what is not on disk yet, fit on the training rows and test."""
        seed_everything(job.seed)
        encoder = self._encoder(job.initialisation).to(job.device).eval()
        _log.info(encoder_account(job.initialisation, encoder))
        train, validation, test = (
            self._samples_of(job, encoder, split, entries)
            for split, entries in (("train", job.train), ("val", job.validation), ("test", job.test))
        )
        train, validation, test = standardised(train, validation, test)
        strength = choose_c(self.c, self.balanced, train, validation)
        _log.info("%s: C = %g", job.folder, strength)
        probabilities = {
            "linear": linear_probabilities(strength, self.balanced, train, test.features),
            "knn": neighbour_probabilities(self.k, train, test.features),
        }
        metrics: dict[str, float] = {}
        cases: dict[str, dict[str, float]] = {}
        for kind, found in probabilities.items():
            metrics |= {f"{kind}_{name}": value for name, value in class_metrics(found, test.labels).items()}
            for name, case in class_cases(test.ids, found, test.labels).items():
                cases.setdefault(name, {}).update({f"{kind}_{metric}": value for metric, value in case.items()})
        return Outcome({**metrics, "linear_c": strength}, cases)

    def _samples_of(self, job: Job, encoder: JointEncoder, split: str, entries: Sequence[Entry]) -> Samples:
        facts = [self.of, astuple(self.inputs()), self.levels, self.without_volume_encoder]
        features = frozen_features(
            job,
            split,
            LabelledInputs(job.manifest, entries, self.inputs()),
            facts,
            lambda volumes: (
                encoder(volumes) if self.of == "volumes" else encoder.slices(volumes)[valid_slices(volumes)]
            ),
            encoder.width,
            self.batch_size,
            self.workers,
        )
        rows = [entry for entry in entries for _ in range(self._samples(entry))]
        return Samples(features, class_labels(rows), [entry.id for entry in rows], [entry.patient for entry in rows])

    def _encoder(self, start: Initialisation) -> JointEncoder:
        if self.of == "volumes" and (start.has_volume_encoder or self.without_volume_encoder == "random"):
            return build_joint_encoder(start, levels=self.levels, slices=self.slices)
        return build_slice_encoder(start, self.levels)

    def _samples(self, entry: Entry) -> int:
        """Feature vectors of a row."""
        if self.of == "volumes" or entry.kind == "image":
            return 1
        return min(self.slices, entry.shape[-3])
