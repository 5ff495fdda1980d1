"""`segmentation_3d`: volumes slice by slice, merged and scored as volumes (paper, Tables 3, 4 and 6)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from vissl_jointssl.evaluation.segmentation.network import build_unet
from vissl_jointssl.evaluation.segmentation.options import SegmentationOptions, is_number
from vissl_jointssl.evaluation.segmentation.predicting import predict_all
from vissl_jointssl.evaluation.segmentation.predictions import write_volume_prediction
from vissl_jointssl.evaluation.segmentation.scoring import score_all, score_case
from vissl_jointssl.evaluation.segmentation.slices import slice_pools
from vissl_jointssl.evaluation.segmentation.targets import TargetError, Targets, find_targets
from vissl_jointssl.evaluation.segmentation.training import train
from vissl_jointssl.evaluation.task import Job, Outcome
from vissl_jointssl.manifest import Entry

METRICS = ("iou", "dice", "hd95")


@dataclass(frozen=True)
class VolumeSegmentation(SegmentationOptions):
    """Label maps of volumes.

    Metrics: `iou` and `dice` of whole volumes, `hd95` in mm (NaN for a row without spacing). With validation rows the
    epoch with the best `iou` there is tested, without them or with `select: last` the last. `predictions/` is left, see
    `predictions`.

    Attributes:
        background_share: Of the slices drawn in training, how many show no target; the paper draws from two sets of
            slices and does not say how often from each.
        channel: Of volumes with several, counted from 0.
    """

    main_metric: ClassVar[str] = "iou"
    kinds: ClassVar[tuple[str, ...]] = ("volume",)
    background_share: float = 0.5
    channel: int = 0

    def _option_faults(self) -> list[str]:
        faults = super()._option_faults()
        if not is_number(self.background_share) or not 0 <= self.background_share < 1:
            faults.append(f"background_share is {self.background_share!r}, expected a share from 0 and below 1")
        if not isinstance(self.channel, int) or isinstance(self.channel, bool) or self.channel < 0:
            faults.append(f"channel is {self.channel!r}, expected a number counted from 0")
        return faults

    def is_labelled(self, entry: Entry) -> bool:
        """Whether it has a label map."""
        return entry.label_path is not None

    def faults(self, job: Job) -> list[str]:
        """Labels that cannot be learned, channels that do not exist."""
        faults = []
        rows = (*job.train, *job.validation, *job.test)
        counts = {entry.id: entry.shape[0] if len(entry.shape) == 4 else 1 for entry in rows}
        few = [f"row {name!r} has {count} channels" for name, count in counts.items() if count <= self.channel]
        if few:
            faults.append(f"{few[0]}, and options.channel is {self.channel}, counted from 0 ({len(few)} such rows)")
        try:
            self._targets(job)
        except TargetError as error:
            faults.append(str(error))
        return faults

    def run(self, job: Job) -> Outcome:
        """Train and test."""
        targets = self._targets(job)
        network = build_unet(len(targets.numbers), job.initialisation).to(job.device)

        def validate() -> float:
            found = predict_all(network, job.validation, targets, self, job, self.channel)
            scores = [score_case(mine, truth, targets.numbers, ["iou"])["iou"] for _, mine, truth in found]
            return float(np.mean(scores))

        losses = train(
            network,
            slice_pools(job.manifest, job.train, targets),
            targets,
            self,
            job,
            validate if job.validation else None,
            background_share=self.background_share,
            channel=self.channel,
        )
        cases = {}
        for entry, predicted, truth in predict_all(network, job.test, targets, self, job, self.channel):
            cases[entry.id] = score_case(predicted, truth, targets.numbers, METRICS, entry.spacing)
            write_volume_prediction(predicted, entry, job.manifest, targets, job.folder)
        return Outcome(score_all(cases, targets.numbers, METRICS), cases, losses)

    def _targets(self, job: Job) -> Targets:
        labelled = [entry for entry in job.manifest.select(kind="volume") if self.is_labelled(entry)]
        return find_targets(job, labelled, self.labels)
