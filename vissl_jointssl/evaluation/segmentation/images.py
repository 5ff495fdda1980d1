"""`segmentation_2d`: images, with classes that exclude each other or organs that overlap (paper, Table 5)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from vissl_jointssl.evaluation.segmentation.network import build_unet
from vissl_jointssl.evaluation.segmentation.options import SegmentationOptions
from vissl_jointssl.evaluation.segmentation.predicting import predict_all
from vissl_jointssl.evaluation.segmentation.predictions import write_image_prediction
from vissl_jointssl.evaluation.segmentation.scoring import score_all, score_case
from vissl_jointssl.evaluation.segmentation.slices import Pools, Sample
from vissl_jointssl.evaluation.segmentation.targets import TargetError, Targets, find_targets
from vissl_jointssl.evaluation.segmentation.training import train
from vissl_jointssl.evaluation.task import Job, Outcome
from vissl_jointssl.manifest import Entry

METRICS = ("dice", "iou")


@dataclass(frozen=True)
class ImageSegmentation(SegmentationOptions):
    """Label maps or label planes of images.

    Metrics: `dice` and `iou`, on the pixels of the prepared image. With validation rows the epoch with the best `dice`
    there is tested, else the last. `predictions/` is left, see `predictions`.

    Attributes:
        instance_map: Numbers of the label map tell objects apart, such as nuclei: any above 0 is the one target.
    """

    main_metric: ClassVar[str] = "dice"
    kinds: ClassVar[tuple[str, ...]] = ("image",)
    instance_map: bool = False

    def _option_faults(self) -> list[str]:
        faults = super()._option_faults()
        if not isinstance(self.instance_map, bool):
            faults.append(f"instance_map is {self.instance_map!r}, expected true or false")
        if self.instance_map is True and self.labels is not None:
            faults.append("labels names classes and instance_map says that numbers are objects; leave one out")
        return faults

    def is_labelled(self, entry: Entry) -> bool:
        """Whether it has a label map."""
        return entry.label_path is not None

    def faults(self, job: Job) -> list[str]:
        """Labels that cannot be learned."""
        try:
            self._targets(job)
        except TargetError as error:
            return [str(error)]
        return []

    def run(self, job: Job) -> Outcome:
        """Train and test."""
        targets = self._targets(job)
        network = build_unet(len(targets.numbers), job.initialisation).to(job.device)

        def validate() -> float:
            found = predict_all(network, job.validation, targets, self, job)
            scores = [score_case(mine, truth, targets.numbers, ["dice"])["dice"] for _, mine, truth in found]
            return float(np.mean(scores))

        pools = Pools(tuple(Sample(entry) for entry in job.train))
        losses = train(network, pools, targets, self, job, validate if job.validation else None)
        cases = {}
        for entry, predicted, truth in predict_all(network, job.test, targets, self, job):
            cases[entry.id] = score_case(predicted, truth, targets.numbers, METRICS)
            write_image_prediction(predicted, entry, targets, job.folder)
        return Outcome(score_all(cases, targets.numbers, METRICS), cases, losses)

    def _targets(self, job: Job) -> Targets:
        labelled = [entry for entry in job.manifest.select(kind="image") if self.is_labelled(entry)]
        return find_targets(job, labelled, self.labels, instances=self.instance_map)
