"""How well predicted boxes find the true ones: COCO's average precision, by pycocotools.

| metric | what |
|---|---|
| `ap50` | average precision at an overlap of 0.5, mean over classes: the paper's mAP@0.5 |
| `map` | the same, mean over the overlaps 0.5, 0.55 ... 0.95: COCO's mAP |
| `ap50_<class>` | of one class |
| `f1` | of the boxes with at least `score_threshold`, at an overlap of 0.5; mean over images |

Average precision of a class: the boxes of all images are sorted by score, each takes the free true box of its class and
image that it overlaps most, and precision, made falling, is read at the recalls 0, 0.01 ... 1.

Rules for what is not there:

* a class without a true box in any image has no average precision: NaN, left out of the mean over classes;
* an image without a true box adds nothing to be found, but a box that is predicted there is a false one;
* of a single image, `ap50` is over the classes that the image holds, and NaN if it holds none;
* of a single image, `f1` is 1 if there is neither a true nor a predicted box, and 0 if there is only one of them.

pycocotools itself and not torchmetrics' wrapper, which rounds the recalls to float32: 0.3 becomes 0.30000001, which a
recall of exactly 0.3 misses.
"""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vissl_jointssl.manifest import Box

OVERLAPS = tuple(0.5 + 0.05 * step for step in range(10))
_RECALLS = np.linspace(0, 1, 101)


@dataclass(frozen=True)
class ScoredBox(Box):
    """A predicted box.

    Attributes:
        score: How sure the network is, in [0, 1].
    """

    score: float


def score_boxes(
    truth: Mapping[str, Sequence[Box]],
    predicted: Mapping[str, Sequence[ScoredBox]],
    classes: Sequence[str],
    limit: int = 100,
    score_threshold: float = 0.5,
) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """Metrics over all images, and those of each image alone.

    Args:
        truth: Boxes by image.
        predicted: Boxes by image, of the same images.
        classes: Name of each class, which ends the name of its metric.
        limit: Boxes of one class that count in one image, those with the highest scores; COCO's is 100.
        score_threshold: Of the boxes that `f1` counts.

    Returns:
        `ap50`, `map`, `f1` and `ap50_<class>`; and by image `ap50` and `f1`. See the rules above.

    Raises:
        ValueError: If the images differ, or a box is of no class.
    """
    if truth.keys() != predicted.keys():
        other = sorted(truth.keys() ^ predicted.keys())
        raise ValueError(f"images {other[:5]} have truth or prediction alone; give both, () for none")
    for image in truth:
        for box in (*truth[image], *predicted[image]):
            if not 0 <= box.label < len(classes):
                raise ValueError(f"image {image!r} has a box of class {box.label}, there are {len(classes)} from 0")
    cases = {}
    for image in truth:
        precision, f1 = _single(truth[image], predicted[image], limit, score_threshold)
        cases[image] = {"ap50": precision, "f1": f1}
    precisions = average_precisions(list(truth.values()), list(predicted.values()), range(len(classes)), limit=limit)
    metrics = {
        "ap50": _mean(precisions[0]),
        "map": _mean(precisions.mean(axis=0)),
        "f1": _mean(np.array([case["f1"] for case in cases.values()])),
    }
    by_class = zip(classes, precisions[0], strict=True)
    return metrics | {f"ap50_{name}": float(value) for name, value in by_class}, cases


def average_precisions(
    truth: Sequence[Sequence[Box]],
    predicted: Sequence[Sequence[ScoredBox]],
    labels: Sequence[int],
    overlaps: Sequence[float] = OVERLAPS,
    limit: int = 100,
) -> np.ndarray:
    """Average precision `(overlap, class)` over images, NaN for a class without a true box; see `score_boxes`."""
    if not labels:
        return np.full((len(overlaps), 0), math.nan)
    evaluator = _evaluate(truth, predicted, labels, overlaps, limit)
    with contextlib.redirect_stdout(io.StringIO()):  # it prints how it gets on
        evaluator.accumulate()
    precision = evaluator.eval["precision"][:, :, :, 0, 0]  # (overlap, recall, class)
    return np.where(precision[:, 0] < 0, math.nan, precision.mean(axis=1))


def _single(
    truth: Sequence[Box], predicted: Sequence[ScoredBox], limit: int, score_threshold: float
) -> tuple[float, float]:
    """`ap50` and `f1` of one image."""
    held = sorted({box.label for box in truth})
    precision = _mean(average_precisions([truth], [predicted], held, OVERLAPS[:1], limit)[0])
    sure = [box for box in predicted if box.score >= score_threshold]
    if not truth or not sure:
        return precision, float(not truth and not sure)
    labels = sorted({box.label for box in (*truth, *sure)})
    matches = _evaluate([truth], [sure], labels, OVERLAPS[:1], len(sure)).evalImgs
    found = sum(np.count_nonzero(match["dtMatches"]) for match in matches if match is not None)
    return precision, 2 * found / (len(truth) + len(sure))


def _evaluate(
    truth: Sequence[Sequence[Box]],
    predicted: Sequence[Sequence[ScoredBox]],
    labels: Sequence[int],
    overlaps: Sequence[float],
    limit: int,
) -> Any:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        sides = []
        for images in (truth, predicted):
            side = COCO()
            side.dataset = {
                "images": [{"id": number} for number in range(len(images))],
                "categories": [{"id": label} for label in labels],
                "annotations": _annotations(images),
            }
            side.createIndex()
            sides.append(side)
        evaluator = COCOeval(*sides, iouType="bbox")
        evaluator.params.iouThrs = np.array(overlaps)
        evaluator.params.recThrs = _RECALLS
        evaluator.params.maxDets = [limit]
        evaluator.params.areaRng, evaluator.params.areaRngLbl = [[0, math.inf]], ["all"]
        evaluator.evaluate()
    return evaluator


def _annotations(images: Sequence[Sequence[Box]]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for number, boxes in enumerate(images):
        for box in boxes:
            width, height = box.right - box.left, box.bottom - box.top
            found.append(
                {
                    "id": len(found) + 1,  # 0 says "no match" to pycocotools
                    "image_id": number,
                    "category_id": box.label,
                    "bbox": [box.left, box.top, width, height],
                    "area": width * height,
                    "iscrowd": 0,
                    "score": box.score if isinstance(box, ScoredBox) else 0.0,
                }
            )
    return found


def _mean(values: np.ndarray) -> float:
    """Mean of what is not NaN; NaN if nothing is."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else math.nan
