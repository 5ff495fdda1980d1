"""Average precision against loops that know no library, and against torchmetrics."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from vissl_jointssl.evaluation.metrics.boxes import OVERLAPS, ScoredBox, score_boxes
from vissl_jointssl.manifest import Box

Images = dict[str, tuple[Box, ...]]
Scored = dict[str, tuple[ScoredBox, ...]]


def overlap(a: Box, b: Box) -> float:
    width = max(0.0, min(a.right, b.right) - max(a.left, b.left))
    height = max(0.0, min(a.bottom, b.bottom) - max(a.top, b.top))
    areas = (a.right - a.left) * (a.bottom - a.top) + (b.right - b.left) * (b.bottom - b.top)
    return width * height / (areas - width * height)


def matched(truth: Sequence[Box], predicted: Sequence[ScoredBox], threshold: float) -> list[tuple[float, bool]]:
    """Score and success of every box of one image and class, best first."""
    free = list(truth)
    found = []
    for box in sorted(predicted, key=lambda box: -box.score):
        best = max(free, key=lambda other: overlap(box, other), default=None)
        hit = best is not None and overlap(box, best) >= threshold
        if hit:
            free.remove(best)
        found.append((box.score, hit))
    return found


def slow_precision(truth: Images, predicted: Scored, label: int, threshold: float, limit: int) -> float:
    count = sum(box.label == label for boxes in truth.values() for box in boxes)
    if not count:
        return math.nan
    found = []
    for image in truth:
        own = sorted((box for box in predicted[image] if box.label == label), key=lambda box: -box.score)
        found += matched([box for box in truth[image] if box.label == label], own[:limit], threshold)
    found.sort(key=lambda pair: -pair[0])
    points = []
    hits = 0
    for number, (_, hit) in enumerate(found, start=1):
        hits += hit
        points.append((hits / count, hits / number))
    total = 0.0
    for step in range(101):
        total += max((precision for recall, precision in points if recall >= step / 100 - 1e-12), default=0.0)
    return total / 101


def random_set(seed: int, images: int = 12, classes: int = 3) -> tuple[Images, Scored]:
    rng = np.random.default_rng(seed)
    truth: Images = {}
    predicted: Scored = {}
    for number in range(images):
        boxes = []
        for _ in range(rng.integers(0, 6)):
            left, top = rng.uniform(0, 80, 2)
            width, height = rng.uniform(4, 30, 2)
            boxes.append(Box(int(rng.integers(classes)), left, top, left + width, top + height))
        guesses = []
        for box in boxes:
            for _ in range(rng.integers(0, 3)):
                shift = rng.normal(0, 2.5, 4)
                edges = (box.left + shift[0], box.top + shift[1], box.right + shift[2] + 5, box.bottom + shift[3] + 5)
                label = box.label if rng.uniform() < 0.8 else int(rng.integers(classes))
                guesses.append(ScoredBox(label, *edges, float(rng.uniform())))
        for _ in range(rng.integers(0, 4)):
            left, top = rng.uniform(0, 80, 2)
            guesses.append(ScoredBox(int(rng.integers(classes)), left, top, left + 9, top + 9, float(rng.uniform())))
        truth[f"image{number}"], predicted[f"image{number}"] = tuple(boxes), tuple(guesses)
    return truth, predicted


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("limit", [100, 2])
def test_precision_agrees_with_loops_on_random_boxes(seed: int, limit: int) -> None:
    truth, predicted = random_set(seed)
    metrics, cases = score_boxes(truth, predicted, ("a", "b", "c"), limit=limit)
    slow = [[slow_precision(truth, predicted, label, t, limit) for label in range(3)] for t in OVERLAPS]
    assert [metrics[f"ap50_{name}"] for name in "abc"] == pytest.approx(slow[0], abs=1e-6)
    assert metrics["ap50"] == pytest.approx(np.nanmean(slow[0]), abs=1e-6)
    assert metrics["map"] == pytest.approx(np.nanmean(slow), abs=1e-6)
    for image, case in cases.items():
        alone = [slow_precision({image: truth[image]}, predicted, label, 0.5, limit) for label in range(3)]
        expected = np.nanmean(alone) if truth[image] else math.nan
        assert case["ap50"] == pytest.approx(expected, abs=1e-6, nan_ok=True)


@pytest.mark.parametrize("seed", range(4))
def test_f1_agrees_with_loops_on_random_boxes(seed: int) -> None:
    truth, predicted = random_set(seed)
    metrics, cases = score_boxes(truth, predicted, ("a", "b", "c"), score_threshold=0.3)
    values = []
    for image, boxes in truth.items():
        sure = [box for box in predicted[image] if box.score >= 0.3]
        hits = 0
        for label in range(3):
            own = [box for box in boxes if box.label == label]
            hits += sum(hit for _, hit in matched(own, [box for box in sure if box.label == label], 0.5))
        values.append(2 * hits / (len(boxes) + len(sure)) if boxes or sure else 1.0)
        assert cases[image]["f1"] == pytest.approx(values[-1], abs=1e-6)
    assert metrics["f1"] == pytest.approx(np.mean(values), abs=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_precision_agrees_with_torchmetrics(seed: int) -> None:
    from torchmetrics.detection import MeanAveragePrecision

    truth, predicted = random_set(seed, images=20)
    theirs = MeanAveragePrecision(iou_thresholds=list(OVERLAPS), rec_thresholds=np.linspace(0, 1, 101).tolist())

    def tensors(boxes: Sequence[Box]) -> dict[str, torch.Tensor]:
        edges = torch.tensor([(b.left, b.top, b.right, b.bottom) for b in boxes], dtype=torch.float64).reshape(-1, 4)
        found = {"boxes": edges, "labels": torch.tensor([b.label for b in boxes], dtype=torch.int64)}
        scores = [b.score for b in boxes if isinstance(b, ScoredBox)]
        return found | ({"scores": torch.tensor(scores, dtype=torch.float64)} if len(scores) == len(boxes) else {})

    theirs.update([tensors(predicted[image]) for image in truth], [tensors(truth[image]) for image in truth])
    expected = theirs.compute()
    metrics, _ = score_boxes(truth, predicted, ("a", "b", "c"))
    assert metrics["ap50"] == pytest.approx(float(expected["map_50"]), abs=1e-6)
    assert metrics["map"] == pytest.approx(float(expected["map"]), abs=1e-6)


BOX = Box(0, 10, 10, 20, 20)


def sure(box: Box, score: float = 0.9) -> ScoredBox:
    return ScoredBox(box.label, box.left, box.top, box.right, box.bottom, score)


def test_the_truth_itself_is_perfect_and_the_order_of_images_does_not_matter() -> None:
    truth, _ = random_set(0)
    perfect = {image: tuple(sure(box) for box in boxes) for image, boxes in truth.items()}
    metrics, _ = score_boxes(truth, perfect, ("a", "b", "c"))
    assert metrics == pytest.approx(dict.fromkeys(metrics, 1.0))
    truth, predicted = random_set(1)
    backwards = dict(reversed(truth.items())), dict(reversed(predicted.items()))
    assert score_boxes(*backwards, ("a", "b", "c"))[0] == pytest.approx(score_boxes(truth, predicted, "abc")[0])


def test_an_image_without_boxes_is_right_when_nothing_is_predicted_there_and_else_a_false_alarm() -> None:
    truth: Images = {"full": (BOX,), "empty": ()}
    metrics, cases = score_boxes(truth, {"full": (sure(BOX),), "empty": ()}, ["nucleus"])
    assert metrics["ap50"] == pytest.approx(1.0)
    assert cases["empty"]["f1"] == 1.0
    assert math.isnan(cases["empty"]["ap50"])
    alarmed, cases = score_boxes(truth, {"full": (sure(BOX, 0.8),), "empty": (sure(BOX, 0.9),)}, ["nucleus"])
    assert alarmed["ap50"] == pytest.approx(0.5)
    assert cases["empty"]["f1"] == 0.0
    _, cases = score_boxes(truth, {"full": (sure(BOX, 0.4),), "empty": (sure(BOX, 0.4),)}, ["nucleus"])
    assert cases["full"] == {"ap50": pytest.approx(1.0), "f1": 0.0}
    assert cases["empty"]["f1"] == 1.0


def test_a_class_without_a_true_box_is_undefined_and_left_out_of_the_mean() -> None:
    metrics, _ = score_boxes({"x": (BOX,)}, {"x": (sure(BOX), sure(replace(BOX, label=1)))}, ["a", "b"])
    assert metrics["ap50"] == pytest.approx(1.0)
    assert math.isnan(metrics["ap50_b"])
    metrics, cases = score_boxes({"x": ()}, {"x": ()}, ["a"])
    assert math.isnan(metrics["ap50"])
    assert math.isnan(metrics["map"])
    assert cases == {"x": {"ap50": pytest.approx(math.nan, nan_ok=True), "f1": 1.0}}


def test_a_class_that_is_never_predicted_counts_as_nothing_found() -> None:
    metrics, _ = score_boxes({"x": (BOX, replace(BOX, label=1))}, {"x": (sure(BOX),)}, ["a", "b"])
    assert metrics["ap50"] == pytest.approx(0.5)
    assert metrics["ap50_b"] == 0.0


def test_boxes_that_fit_nowhere_are_refused() -> None:
    with pytest.raises(ValueError, match=r"image 'x' has a box of class 3, there are 2 from 0"):
        score_boxes({"x": (replace(BOX, label=3),)}, {"x": ()}, ["a", "b"])
    with pytest.raises(ValueError, match=r"images \['x', 'y'\] have truth or prediction alone"):
        score_boxes({"x": (BOX,)}, {"y": ()}, ["a"])
