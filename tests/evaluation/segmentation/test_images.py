from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from vissl_jointssl.evaluation.segmentation.images import ImageSegmentation
from vissl_jointssl.evaluation.task import Job, Outcome
from vissl_jointssl.evaluation.training_loop import seed_everything
from vissl_jointssl.manifest import Entry

SMALL = ImageSegmentation(epochs=3, samples_per_epoch=48, batch_size=4, size=32, learning_rate=0.05)

pytestmark = pytest.mark.usefixtures("small_network")


def run(task: ImageSegmentation, job: Job) -> Outcome:
    assert task.faults(job) == []
    seed_everything(job.seed)
    return task.run(job)


def organs(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A bright square and a wide bar across it, as planes that overlap; grey adds up."""
    rng = np.random.default_rng(seed)
    planes = np.zeros((2, 36, 30), dtype=np.uint8)
    top, left = rng.integers(2, 14, 2)
    planes[0, top : top + 14, left : left + 14] = 1
    planes[1, top + 4 : top + 12] = 1
    image = 20 + 100 * planes[0] + 110 * planes[1] + rng.integers(0, 20, planes[0].shape)
    return image.astype(np.uint8), planes


def test_overlapping_organs_are_learned_as_planes(add_row: Callable[..., Entry], make_job: Callable[..., Job]) -> None:
    rows = [add_row(f"x{n}", *organs(n), "train" if n < 6 else "test") for n in range(8)]
    job = make_job(rows)
    outcome = run(SMALL, job)
    assert set(outcome.metrics) == {"dice", "dice_1", "dice_2", "iou", "iou_1", "iou_2"}
    assert min(outcome.metrics["dice_1"], outcome.metrics["dice_2"]) > 0.8
    assert outcome.metrics["dice"] == pytest.approx((outcome.metrics["dice_1"] + outcome.metrics["dice_2"]) / 2)
    for number, entry in enumerate(job.test, start=6):
        planes = organs(number)[1].astype(bool)
        for label, truth in enumerate(planes, start=1):
            saved = np.array(Image.open(job.folder / "predictions" / f"{entry.id}-{label}.png")) == 255
            dice = 2 * np.count_nonzero(saved & truth) / (np.count_nonzero(saved) + np.count_nonzero(truth))
            assert outcome.cases[entry.id][f"dice_{label}"] == pytest.approx(dice)


def test_numbered_objects_in_colour_and_grey_are_one_target(
    add_row: Callable[..., Entry], make_job: Callable[..., Job]
) -> None:
    rng = np.random.default_rng(0)
    rows = []
    for number in range(6):
        labels = np.zeros((32, 32), dtype=np.int32)
        for nucleus in range(1, 4):
            top, left = rng.integers(0, 24, 2)
            labels[top : top + 8, left : left + 8] = 100_000 * nucleus
        image = (rng.integers(0, 60, labels.shape) + 180 * (labels > 0)).astype(np.uint8)
        if number % 2:
            image = np.stack([image] * 3, axis=-1)
        rows.append(add_row(f"n{number}", image, labels, "test" if number > 3 else "train"))
    job = make_job(rows)
    task = replace(SMALL, instance_map=True, augment="flip")
    outcome = run(task, job)
    assert set(outcome.metrics) == {"dice", "iou"}
    assert outcome.metrics["dice"] > 0.8
    assert set(np.unique(Image.open(job.folder / "predictions" / "n4.png"))) == {0, 1}


def test_an_image_is_predicted_alike_whatever_its_size(
    add_row: Callable[..., Entry], make_job: Callable[..., Job]
) -> None:
    image, planes = organs(0)
    large = add_row(
        "large",
        np.kron(image, np.ones((3, 3), dtype=np.uint8)),
        np.kron(planes[:1], np.ones((1, 3, 3), np.uint8)),
        "test",
    )
    rows = [
        *(add_row(f"x{n}", organs(n)[0], organs(n)[1][:1]) for n in range(4)),
        add_row("same", image, planes[:1], "test"),
    ]
    outcome = run(SMALL, make_job([*rows, large]))
    assert outcome.cases["large"]["dice"] == pytest.approx(outcome.cases["same"]["dice"], abs=0.1)
    assert outcome.cases["same"]["dice"] > 0.8


def test_classes_and_numbers_of_objects_do_not_go_together() -> None:
    with pytest.raises(ValueError, match=r"labels names classes and instance_map says that numbers are objects"):
        ImageSegmentation(labels=(1,), instance_map=True)
    with pytest.raises(ValueError, match=r"instance_map is 'yes', expected true or false"):
        ImageSegmentation(instance_map="yes")  # type: ignore[arg-type]


def test_a_label_that_no_training_image_has_is_a_fault(
    add_row: Callable[..., Entry], make_job: Callable[..., Job]
) -> None:
    image, planes = organs(0)
    rows = [add_row("a", image, planes[0]), add_row("b", image, 2 * planes[0], "test")]
    assert SMALL.faults(make_job(rows)) == [
        "none of 1 training rows holds label 2 (they hold 1); name others in options.labels, or raise fractions"
    ]
