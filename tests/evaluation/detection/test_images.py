from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from vissl_jointssl.evaluation.detection.images import ImageDetection
from vissl_jointssl.evaluation.initialisation import Initialisation
from vissl_jointssl.evaluation.metrics.boxes import ScoredBox, score_boxes
from vissl_jointssl.evaluation.plan import PlanError
from vissl_jointssl.evaluation.task import Job
from vissl_jointssl.evaluation.tasks import build_task
from vissl_jointssl.evaluation.training_loop import seed_everything
from vissl_jointssl.manifest import Manifest

SMALL = ImageDetection(
    epochs=2,
    drop_epoch=2,
    learning_rate=0.02,
    warmup_steps=4,
    batch_size=4,
    min_size=64,
    max_size=64,
    anchor_sizes=(12, 20, 32, 48, 64),
)


def predictions(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "predictions").iterdir())}


def test_training_of_the_whole_network_lowers_the_loss(
    make_manifest: Callable[..., Manifest], make_job: Callable[..., Job], pretrained: Initialisation
) -> None:
    job = make_job(make_manifest(train=3, test=1), pretrained)
    seed_everything(0)
    outcome = replace(SMALL, epochs=2, warmup_steps=0, mirror=False).run(job)
    assert len(outcome.losses) == 2
    assert outcome.losses[1] < 0.9 * outcome.losses[0]


@pytest.mark.usefixtures("small_network")
def test_the_files_hold_the_boxes_that_were_scored(
    make_manifest: Callable[..., Manifest], make_job: Callable[..., Job]
) -> None:
    seed_everything(0)
    job = make_job(make_manifest(train=12, test=6))
    outcome = replace(SMALL, epochs=3, drop_epoch=3, learning_rate=0.01, batch_size=2, classes=("square",)).run(job)
    assert outcome.cases.keys() == {row.id for row in job.test}
    files = predictions(job.folder)
    assert list(files) == [f"case%2F{number}.json" for number in range(12, 18)]
    read = {row.id: json.loads(files[row.id.replace("/", "%2F") + ".json"]) for row in job.test}
    found = {id: [ScoredBox(**box) for box in boxes] for id, boxes in read.items()}
    truth = {row.id: job.manifest.open_boxes(row) for row in job.test}
    metrics, cases = score_boxes(truth, found, ("square",))
    assert metrics == pytest.approx(dict(outcome.metrics))
    assert cases.keys() == outcome.cases.keys()
    assert any(found.values())
    for boxes in found.values():
        assert [box.score for box in boxes] == sorted((box.score for box in boxes), reverse=True)
        assert all(0 <= box.left < box.right <= 64 and 0 <= box.top < box.bottom <= 64 for box in boxes)


@pytest.mark.slow
@pytest.mark.usefixtures("small_network")
def test_bright_squares_are_found(make_manifest: Callable[..., Manifest], make_job: Callable[..., Job]) -> None:
    seed_everything(0)
    job = make_job(make_manifest(train=16, test=8))
    outcome = replace(SMALL, epochs=16, drop_epoch=13, learning_rate=0.003, batch_size=2).run(job)
    assert outcome.metrics["ap50"] > 0.5


@pytest.mark.slow
def test_the_whole_network_finds_bright_squares(
    make_manifest: Callable[..., Manifest], make_job: Callable[..., Job]
) -> None:
    seed_everything(0)
    task = replace(SMALL, epochs=10, drop_epoch=9, learning_rate=0.004, batch_size=2)
    assert task.run(make_job(make_manifest(train=12, test=6))).metrics["ap50"] > 0.5


@pytest.mark.usefixtures("small_network")
def test_a_killed_run_goes_on_and_gives_what_an_undisturbed_one_gives(
    make_manifest: Callable[..., Manifest], make_job: Callable[..., Job], tmp_path: Path
) -> None:
    class Killed(BaseException):
        pass

    def kill(what: str, done: int, total: int) -> None:
        if what == "epoch" and done == 2:
            raise Killed

    manifest = make_manifest(train=6, val=2, test=2)
    task = replace(SMALL, epochs=3, drop_epoch=1)
    seed_everything(0)
    whole = task.run(make_job(manifest, folder=tmp_path / "whole"))
    job = make_job(manifest, folder=tmp_path / "killed")
    seed_everything(0)
    with pytest.raises(Killed):
        task.run(replace(job, progress=kill))
    seed_everything(0)
    again = task.run(job)
    assert again.losses == whole.losses
    assert again.metrics == pytest.approx(dict(whole.metrics), nan_ok=True, abs=0)
    assert predictions(tmp_path / "killed") == predictions(tmp_path / "whole")
    other = task.run(replace(job, seed=1, folder=tmp_path / "other"))
    assert other.losses != whole.losses


@pytest.mark.usefixtures("small_network")
def test_a_loss_that_is_not_finite_stops_the_run_before_the_weights_are_spoilt(
    make_manifest: Callable[..., Manifest], make_job: Callable[..., Job]
) -> None:
    job = make_job(make_manifest(train=4, test=1))
    with pytest.raises(FloatingPointError, match=r"the loss of epoch \d is nan; lower options.learning_rate"):
        replace(SMALL, epochs=4, learning_rate=1e30, warmup_steps=0, clip_norm=0, batch_size=1).run(job)


def test_the_learning_rate_rises_and_then_falls_to_a_tenth() -> None:
    task = ImageDetection()
    assert task.rate(0, 0) == pytest.approx(0.0001)
    assert task.rate(0, 250) == pytest.approx(0.1 * (0.001 + 0.999 / 2))
    assert task.rate(2, 500) == task.rate(29, 9000) == 0.1
    assert task.rate(30, 9001) == task.rate(39, 12000) == pytest.approx(0.01)
    assert replace(task, warmup_steps=0).rate(0, 0) == 0.1


@pytest.mark.parametrize("select", ["best", "last"])
@pytest.mark.usefixtures("small_network")
def test_the_epoch_that_is_best_on_the_validation_rows_is_tested_or_the_last_where_asked(
    make_manifest: Callable[..., Manifest], make_job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch, select: str
) -> None:
    job = make_job(make_manifest(train=4, val=2, test=2), folder=None)
    scores = iter([0.2, 0.7, math.nan])
    weights: list[torch.Tensor] = []
    original = ImageDetection._predict

    def predict(self, job, detector, rows):
        weights.append(next(detector.parameters()).detach().clone())
        return original(self, job, detector, rows)

    def score(self, job, rows, predicted, names):
        return {"ap50": next(scores, 0.5)}, {}

    monkeypatch.setattr(ImageDetection, "_predict", predict)
    monkeypatch.setattr(ImageDetection, "_score", score)
    job = replace(job, folder=job.manifest.root / "run")
    replace(SMALL, epochs=3, select=select).run(job)
    if select == "last":
        assert len(weights) == 1  # the validation rows are not looked at
        return
    first, second, third, tested = weights
    assert tested.equal(second)
    assert not tested.equal(first)
    assert not tested.equal(third)


def test_rows_with_boxes_are_labelled_and_those_with_maps_if_so_wished(make_manifest: Callable[..., Manifest]) -> None:
    boxes, map_ = make_manifest().entries[0], make_manifest(maps=True).entries[0]
    assert SMALL.is_labelled(boxes)
    assert not SMALL.is_labelled(map_)
    assert replace(SMALL, boxes_from_labels=True).is_labelled(map_)


def test_data_that_does_not_fit_is_said_before_training(
    make_manifest: Callable[..., Manifest], make_job: Callable[..., Job]
) -> None:
    job = make_job(make_manifest(classes=2))
    assert SMALL.faults(job) == []
    assert "options.classes names 1, from 0" in replace(SMALL, classes=("mass",)).faults(job)[0]
    empty = tuple(row for row in job.train if not job.manifest.open_boxes(row))
    assert SMALL.faults(replace(job, train=empty)) == [
        "none of the 2 training rows has a box; give a larger fraction, or label more"
    ]


def test_classes_are_those_of_all_the_data_whatever_the_fraction(
    make_manifest: Callable[..., Manifest], make_job: Callable[..., Job]
) -> None:
    job = make_job(make_manifest(classes=3))
    assert SMALL._names(replace(job, train=(), test=())) == ("0", "1", "2")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"epochs": 0}, "epochs is 0, expected 1 to inf"),
        ({"min_size": 600}, "min_size is 600, expected 32 to 512"),
        ({"select": "lst"}, r"select is 'lst'; did you mean last\?"),
        ({"box_samples": 0}, "box_samples is 0, expected 1 to inf"),
        ({"trainable_layers": 6}, "trainable_layers is 6, expected 0 to 5"),
        ({"learning_rate": 0}, "learning_rate is 0, expected a number above 0"),
        ({"anchor_sizes": [8, 16]}, r"anchor_sizes is \(8, 16\), expected a side in pixels for each of 5 levels"),
        ({"batchnorm": "frozn"}, r"batchnorm is 'frozn'; did you mean frozen\?"),
        ({"classes": ["a", "a"]}, "two of classes have the same name: a, a"),
        ({"score_threshold": 1.5, "momentum": 1}, "momentum is 1, expected 0 to 0.9999; score_threshold is 1.5"),
        ({"epoch": 1}, r"options.epoch is read by nothing; did you mean epochs\?"),
    ],
)
def test_options_out_of_their_limits_are_refused(options: dict[str, object], said: str) -> None:
    with pytest.raises(PlanError, match=said):
        build_task("detection_2d", options)
