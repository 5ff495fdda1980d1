from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from vissl_jointssl.evaluation.segmentation import volumes
from vissl_jointssl.evaluation.segmentation.volumes import VolumeSegmentation
from vissl_jointssl.evaluation.task import Job, Outcome
from vissl_jointssl.evaluation.training_loop import seed_everything
from vissl_jointssl.manifest import Entry

SMALL = VolumeSegmentation(epochs=3, batch_size=8, size=32)


def run(task: VolumeSegmentation, job: Job) -> Outcome:
    """As the contract does it."""
    assert task.faults(job) == []
    seed_everything(job.seed)
    return task.run(job)


@pytest.mark.usefixtures("small_network")
def test_a_bright_ball_is_learned_and_its_prediction_saved(
    balls: Callable[..., list[Entry]], make_job: Callable[..., Job]
) -> None:
    job = make_job(balls(train=4))
    outcome = run(replace(SMALL, samples_per_epoch=96), job)
    assert outcome.metrics["iou"] > 0.6
    assert outcome.losses[-1] < outcome.losses[0] / 3
    assert set(outcome.metrics) == {"iou", "dice", "hd95", "hd95_undefined"}
    assert set(outcome.cases) == {entry.id for entry in job.test}
    for entry in job.test:
        truth = np.asarray(job.manifest.open_label(entry)) == 1
        saved = np.asarray(nibabel.load(job.folder / "predictions" / f"{entry.id}.nii.gz").dataobj) == 1
        overlap = np.count_nonzero(truth & saved) / np.count_nonzero(truth | saved)
        assert outcome.cases[entry.id]["iou"] == pytest.approx(overlap)


@pytest.mark.slow
def test_a_bright_ball_is_learned_by_the_real_network(
    balls: Callable[..., list[Entry]], make_job: Callable[..., Job]
) -> None:
    assert run(replace(SMALL, epochs=8), make_job(balls(train=4))).metrics["iou"] > 0.6


@pytest.mark.usefixtures("small_network")
@pytest.mark.parametrize("validation", [0, 1])
def test_equal_seeds_give_equal_bits_and_a_killed_run_ends_as_an_undisturbed_one(
    balls: Callable[..., list[Entry]], make_job: Callable[..., Job], validation: int
) -> None:
    class Killed(BaseException):
        pass

    seen: list[int] = []

    def kill(what: str, done: int, total: int) -> None:
        seen.append(done)
        if seen.count(2) == 1 and done == 2:
            raise Killed

    rows = balls(train=2, validation=validation, test=1, depth=4)
    task = replace(SMALL, augment="flip", schedule="polynomial", batch_size=8, epochs=3)
    undisturbed = make_job(rows, "undisturbed")
    first = run(task, undisturbed)
    assert run(task, make_job(rows, "again")) == first
    killed = make_job(rows, "killed", progress=kill)
    with pytest.raises(Killed):
        run(task, killed)
    assert run(task, killed) == first
    if not validation:
        assert run(replace(task, epochs=1), make_job(rows, "other", seed=1)).losses != first.losses[:1]
    name = f"predictions/{undisturbed.test[0].id}.nii.gz"
    assert (killed.folder / name).read_bytes() == (undisturbed.folder / name).read_bytes()


class Scripted(nn.Module):
    """Says in every epoch what a script has for it, whatever it sees: 1 target everywhere, 0 nowhere."""

    def __init__(self, script: Sequence[float]) -> None:
        super().__init__()
        self.script = script
        self.register_buffer("answer", torch.zeros(()))
        self.weight = nn.Parameter(torch.zeros(1))
        self.epoch = -1

    def train(self, mode: bool = True) -> Scripted:
        if mode and not self.training:
            self.epoch += 1
            self.answer = torch.tensor(self.script[self.epoch])
        return super().train(mode)

    def forward(self, pictures: Tensor) -> Tensor:
        return 0 * self.weight + 20 * (self.answer - 0.5) * torch.ones_like(pictures[:, :1])


@pytest.mark.parametrize(("validation", "select", "expected"), [(1, "best", 1.0), (1, "last", 0.0), (0, "best", 0.0)])
def test_the_best_epoch_is_tested_and_without_validation_or_where_asked_the_last(
    add_row: Callable[..., Entry],
    make_job: Callable[..., Job],
    monkeypatch: pytest.MonkeyPatch,
    validation: int,
    select: str,
    expected: float,
) -> None:
    full = np.ones((2, 32, 32), dtype=np.uint8)
    splits = ["train", "test", *["val"] * validation]
    rows = [add_row(split, np.zeros(full.shape, dtype=np.uint16), full, split) for split in splits]
    network = Scripted([0.0, 1.0, 0.0]).eval()
    monkeypatch.setattr(volumes, "build_unet", lambda labels, initialisation: network)
    assert run(replace(SMALL, select=select), make_job(rows)).metrics["iou"] == expected


@pytest.mark.usefixtures("small_network")
def test_empty_masks_count_by_their_rules_and_undefined_distances_are_counted(
    add_row: Callable[..., Entry], make_job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = (2, 32, 32)
    some = np.zeros(shape, dtype=np.uint8)
    some[:, 8:20, 8:20] = 1
    rows = [
        add_row("train", np.zeros(shape, dtype=np.uint16), some),
        add_row("full", np.zeros(shape, dtype=np.uint16), some, "test"),
        add_row("empty", np.zeros(shape, dtype=np.uint16), 0 * some, "test"),
        add_row("unsized", np.zeros(shape, dtype=np.uint16), 0 * some, "test", spacing=None),
    ]
    network = Scripted([0.0]).eval()
    monkeypatch.setattr(volumes, "build_unet", lambda labels, initialisation: network)
    outcome = run(replace(SMALL, epochs=1), make_job(rows))
    assert outcome.cases["full"]["iou"] == 0.0
    assert math.isnan(outcome.cases["full"]["hd95"])
    assert outcome.cases["empty"] == {"iou": 1.0, "dice": 1.0, "hd95": 0.0}
    assert math.isnan(outcome.cases["unsized"]["hd95"])
    assert outcome.metrics == pytest.approx({"iou": 2 / 3, "dice": 2 / 3, "hd95": 0.0, "hd95_undefined": 2.0})


@pytest.mark.usefixtures("small_network")
def test_several_labels_of_one_channel_are_learned_apart(
    add_row: Callable[..., Entry], make_job: Callable[..., Job]
) -> None:
    rng = np.random.default_rng(0)
    rows = []
    for number in range(4):
        labels = np.zeros((4, 32, 32), dtype=np.uint8)
        top, left = rng.integers(2, 16, 2)
        labels[1:3, top : top + 12, left : left + 6] = 2
        labels[1:3, top : top + 12, left + 6 : left + 12] = 5
        bright = np.select([labels == 2, labels == 5], [65535, 0], 30000)
        noise = rng.integers(0, 65535, labels.shape)
        array = np.stack([noise, bright]).astype(np.uint16)
        rows.append(add_row(f"v{number}", array, labels, "test" if number == 3 else "train"))
    job = make_job(rows)
    outcome = run(replace(SMALL, samples_per_epoch=80, channel=1, learning_rate=0.05), job)
    assert outcome.metrics["iou"] == pytest.approx((outcome.metrics["iou_2"] + outcome.metrics["iou_5"]) / 2)
    assert min(outcome.metrics["iou_2"], outcome.metrics["iou_5"]) > 0.5
    saved = np.asarray(nibabel.load(job.folder / "predictions" / "v3.nii.gz").dataobj)
    assert set(np.unique(saved)) == {0, 2, 5}


def test_what_the_data_cannot_give_is_said_before_training(
    balls: Callable[..., list[Entry]], make_job: Callable[..., Job]
) -> None:
    job = make_job(balls())
    (first, second) = replace(SMALL, labels=(3,), channel=1).faults(job)
    assert first == "row 'ball0' has 1 channels, and options.channel is 1, counted from 0 (5 such rows)"
    assert "none of 3 training rows holds label 3 (they hold 1)" in second


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": ()}, r"labels is \(\), expected a list of different numbers above 0, such as \[3\]"),
        ({"labels": (0, 1)}, r"labels is \(0, 1\)"),
        ({"labels": 3}, r"labels is 3, expected a list"),
        ({"size": 100}, r"size is 100, expected a multiple of 32"),
        ({"batch_size": 1}, r"batch_size is 1, expected a whole number from 2"),
        ({"learning_rate": "1e-1"}, r"learning_rate is '1e-1', expected a number from 0"),
        ({"momentum": 1.0}, r"momentum is 1.0, expected a number from 0 and below 1"),
        ({"background_share": 1}, r"background_share is 1, expected a share from 0 and below 1"),
        ({"schedule": "polynom"}, r"schedule is 'polynom'; did you mean polynomial\?"),
        ({"augment": "flips", "epochs": 0, "channel": -1}, r"epochs is 0.*did you mean flip\?.*channel is -1"),
    ],
)
def test_options_out_of_their_limits_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VolumeSegmentation(**options)  # type: ignore[arg-type]


@pytest.mark.usefixtures("small_network")
def test_a_slice_is_predicted_alike_whatever_is_predicted_beside_it(
    balls: Callable[..., list[Entry]], make_job: Callable[..., Job]
) -> None:
    job = make_job(balls(train=1, test=1, depth=5))
    torch.manual_seed(0)
    network = volumes.build_unet(1, job.initialisation).train()
    found = [
        next(
            volumes.predict_all(network.train(), job.test, volumes.Targets((1,)), replace(SMALL, batch_size=size), job)
        )[1]
        for size in (2, 5)
    ]
    assert 0 < np.count_nonzero(found[0]) < found[0].size
    assert np.mean(found[0] != found[1]) < 1e-3  # kernels round differently for other sizes of a batch


def test_the_test_rows_are_read_one_at_a_time(
    balls: Callable[..., list[Entry]], make_job: Callable[..., Job], tmp_path: Path
) -> None:
    job = make_job(balls(train=1, test=3, depth=4))
    found = volumes.predict_all(Scripted([]), job.test, volumes.Targets((1,)), SMALL, job)
    assert next(found)[0].id == "ball1"
    for entry in job.test[1:]:
        (tmp_path / "data" / entry.path).unlink()  # not yet opened
    with pytest.raises(ValueError, match="does not exist"):
        next(found)
