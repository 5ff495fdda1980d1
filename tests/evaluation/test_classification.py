"""Classification of volumes, on slabs that are bright in the first or in the last slices."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from vissl_jointssl.checkpoints import Checkpoint, StageRecord
from vissl_jointssl.evaluation.best_epoch import BestEpoch
from vissl_jointssl.evaluation.classification.inputs import InputRecipe, LabelledInputs, batches, read_input
from vissl_jointssl.evaluation.classification.network import VolumeClassifier
from vissl_jointssl.evaluation.classification.sampling import draw_epoch, loss_weights
from vissl_jointssl.evaluation.classification.volumes import VolumeClassification
from vissl_jointssl.evaluation.initialisation import Initialisation
from vissl_jointssl.evaluation.task import Job, Outcome
from vissl_jointssl.evaluation.tasks import build_task
from vissl_jointssl.manifest import Entry, Manifest, read_manifest, write_manifest
from vissl_jointssl.models.joint_encoder import JointEncoder
from vissl_jointssl.views import GREY_MEAN

TINY = VolumeClassification(epochs=2, batch_size=8, size=(16, 16), slices=4, levels=("res1",))


@pytest.fixture
def make_manifest(tmp_path: Path) -> Callable[..., Manifest]:
    def make(train: int = 8, val: int = 4, test: int = 8, shape: tuple[int, ...] = (4, 16, 16)) -> Manifest:
        rng = np.random.default_rng(0)
        entries = []
        for number in range(train + val + test):
            label = number % 2
            volume = rng.normal(0.3, 0.05, shape)
            half = shape[-3] // 2
            row = rng.integers(0, shape[-2] // 2)
            chosen = slice(half, None) if label else slice(0, half)
            volume[..., chosen, row : row + shape[-2] // 2, :] += 0.5
            array = (volume.clip(0, 1) * 255).astype(np.uint8)
            np.save(tmp_path / f"{number}.npy", array)
            split = "train" if number < train else "val" if number < train + val else "test"
            digest = hashlib.sha256((tmp_path / f"{number}.npy").read_bytes()).hexdigest()
            entries.append(
                Entry(
                    id=f"v{number}",
                    kind="volume",
                    path=f"{number}.npy",
                    label_path=None,
                    label=label,
                    split=split,
                    patient=f"p{number}",
                    modality="CT",
                    spacing=None,
                    shape=array.shape,
                    dtype="uint8",
                    sha256=digest,
                )
            )
        write_manifest(tmp_path / "manifest.csv", entries)
        return read_manifest(tmp_path)

    return make


@pytest.fixture
def make_job(tmp_path: Path) -> Callable[..., Job]:
    def make(manifest: Manifest, folder: str = "run", **changes: object) -> Job:
        job = Job(
            manifest=manifest,
            train=manifest.select(splits=("train",)),
            validation=manifest.select(splits=("val",)),
            test=manifest.select(splits=("test",)),
            initialisation=Initialisation("scratch"),
            seed=0,
            device=torch.device("cpu"),
            folder=tmp_path / folder,
            progress=lambda what, done, total: None,
        )
        (tmp_path / folder).mkdir(exist_ok=True)
        return replace(job, **changes)

    return make


def numbers(outcome: Outcome) -> tuple[object, ...]:
    return dict(outcome.metrics), outcome.cases, outcome.losses


def test_it_learns_in_which_slices_the_bright_slab_lies(
    make_manifest: Callable[..., Manifest], make_job: Callable[..., Job]
) -> None:
    manifest = make_manifest(train=32, val=0, test=24, shape=(6, 32, 32))
    task = replace(TINY, epochs=6, size=(32, 32), slices=6, learning_rate=0.03)
    outcome = task.run(make_job(manifest))
    assert outcome.metrics["auc"] > 0.9
    assert outcome.metrics["auc_low"] <= outcome.metrics["auc"] <= outcome.metrics["auc_high"]
    assert outcome.losses[-1] < outcome.losses[0]
    assert outcome.cases.keys() == {entry.id for entry in manifest.select(splits=("test",))}
    assert np.mean([case["correct"] for case in outcome.cases.values()]) == outcome.metrics["accuracy"]


def test_equal_seeds_give_equal_numbers_and_other_seeds_others(
    make_manifest: Callable[..., Manifest], make_job: Callable[..., Job]
) -> None:
    manifest, task = make_manifest(), replace(TINY, epochs=1)
    first = task.run(make_job(manifest, "a"))
    torch.manual_seed(99)
    assert numbers(replace(task, workers=1).run(make_job(manifest, "b"))) == numbers(first)
    assert task.run(make_job(manifest, "c", seed=1)).losses != first.losses


def test_a_killed_run_goes_on_and_gives_what_an_undisturbed_one_gives(
    make_manifest: Callable[..., Manifest], make_job: Callable[..., Job]
) -> None:
    class Killed(BaseException):
        pass

    def kill(what: str, done: int, total: int) -> None:
        if done == 2:
            raise Killed

    task = replace(TINY, epochs=3, momentum=0.9, schedule="cosine", sampling="balanced", class_weights="balanced")
    manifest = make_manifest()
    undisturbed = task.run(make_job(manifest, "whole"))
    with pytest.raises(Killed):
        task.run(make_job(manifest, "killed", progress=kill))
    assert numbers(task.run(make_job(manifest, "killed"))) == numbers(undisturbed)


def test_every_weight_gets_a_gradient(make_manifest: Callable[..., Manifest], make_job: Callable[..., Job]) -> None:
    job = make_job(make_manifest(train=4, val=0, test=2))
    task = replace(TINY, epochs=1, levels=("res1", "res2", "res3", "res4", "res5"))
    models: list[VolumeClassifier] = []

    class Spy(VolumeClassifier):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            models.append(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vissl_jointssl.evaluation.classification.volumes.VolumeClassifier", Spy)
        task.run(job)
    assert [name for name, value in models[0].named_parameters() if value.grad is None] == []


def test_the_head_is_two_layers_640_to_252_to_the_classes() -> None:
    model = VolumeClassifier(JointEncoder(("res1",), "none", 640), 3)
    shapes = [tuple(layer.weight.shape) for layer in model.classifier if isinstance(layer, nn.Linear)]
    assert shapes == [(252, 640), (3, 252)]


@torch.no_grad()
def test_padding_changes_no_logit() -> None:
    torch.manual_seed(0)
    model = VolumeClassifier(JointEncoder(("res1",), "slice", 64, {"downsample": [2, 1]}), 2).eval()
    volumes = torch.rand(2, 4, 1, 16, 16)
    padded = torch.cat([volumes, torch.full((2, 3, 1, 16, 16), torch.nan)], dim=1)
    torch.testing.assert_close(model(padded), model(volumes), atol=1e-5, rtol=0)


# --- which epoch


def test_the_best_epoch_by_validation_is_tested_and_the_last_where_asked(
    make_manifest: Callable[..., Manifest], make_job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = make_manifest()
    scores = iter([0.9, 0.9])
    monkeypatch.setattr(
        "vissl_jointssl.evaluation.classification.volumes.class_auc", lambda probabilities, labels: next(scores)
    )
    best = TINY.run(make_job(manifest, "best"))
    first = replace(TINY, epochs=1, select="last").run(make_job(manifest, "first"))
    last = replace(TINY, select="last").run(make_job(manifest, "last"))
    assert best.cases == first.cases
    assert best.cases != last.cases


def test_the_best_epoch_survives_on_disk(tmp_path: Path) -> None:
    model = nn.Linear(2, 1)
    best = BestEpoch()
    best.offer(3, 0.7, model)
    kept = model.weight.detach().clone()
    torch.save(best.state_dict(), tmp_path / "best.pt")
    with torch.no_grad():
        model.weight.zero_()
    best.offer(4, 0.7, model)
    other = BestEpoch()
    other.load_state_dict(torch.load(tmp_path / "best.pt", weights_only=True))
    assert (other.score, other.epoch, best.epoch) == (0.7, 3, 3)
    other.restore(model)
    assert torch.equal(model.weight, kept)
    BestEpoch().restore(model)
    assert torch.equal(model.weight, kept)


# --- rows of an epoch


def test_a_balanced_epoch_has_every_rare_row_and_as_many_others() -> None:
    labels = [1 if number in (3, 40, 77) else 0 for number in range(100)]
    torch.manual_seed(0)
    epochs = [draw_epoch(labels, "balanced", 2.0) for _ in range(50)]
    for rows in epochs:
        assert len(rows) == len(set(rows)) == 9
        assert {3, 40, 77} <= set(rows)
    assert len({row for rows in epochs for row in rows}) > 80  # drawn anew each time
    assert len({tuple(row in (3, 40, 77) for row in rows) for rows in epochs}) > 10  # in another order
    assert sorted(draw_epoch(labels, "balanced", 1e6)) == list(range(100))
    assert sorted(draw_epoch(labels, "all")) == list(range(100))


def test_balanced_loss_weights_are_scikit_learns() -> None:
    from sklearn.utils.class_weight import compute_class_weight

    labels = [0] * 7 + [1] * 2 + [2]
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    weights = loss_weights(labels, 3, "balanced")
    assert weights is not None
    assert weights.tolist() == pytest.approx(expected.tolist())
    assert loss_weights(labels, 3, None) is None
    given = loss_weights(labels, 3, (1, 2.5, 3))
    assert given is not None
    assert given.tolist() == [1, 2.5, 3]


# --- inputs


def test_inputs_are_the_middle_slices_resized_and_normalised_as_in_pretraining(
    make_manifest: Callable[..., Manifest],
) -> None:
    from vissl_jointssl.plugin.volume_sample import VolumeSample
    from vissl_jointssl.plugin.volume_views import VolumeCentreView
    from vissl_jointssl.views import SampleKey

    manifest = make_manifest(train=2, val=0, test=0, shape=(6, 16, 16))
    entry = manifest.entries[0]
    array = manifest.open(entry)
    found = read_input(manifest, entry, InputRecipe((16, 16), 4))
    expected = (torch.tensor(array[1:5, None] / 255.0) - GREY_MEAN) / 0.226
    torch.testing.assert_close(found, expected.float())
    resized = read_input(manifest, entry, InputRecipe((10, 12), 9))
    assert resized.shape == (9, 1, 10, 12)
    assert resized[6:].isnan().all()
    sample = VolumeSample(array, SampleKey(0, 0, 0), entry.id, entry.spacing)
    pretrained = VolumeCentreView(size=[10, 12], num_slices=9)(sample)
    torch.testing.assert_close(resized, pretrained, equal_nan=True)


def test_spread_slices_reach_from_the_first_to_the_last(make_manifest: Callable[..., Manifest]) -> None:
    manifest = make_manifest(train=2, val=0, test=0, shape=(7, 16, 16))
    entry = manifest.entries[0]
    whole = read_input(manifest, entry, InputRecipe((16, 16), 7))
    spread = read_input(manifest, entry, InputRecipe((16, 16), 3, spread=True))
    assert torch.equal(spread, whole[[0, 3, 6]])
    assert torch.equal(read_input(manifest, entry, InputRecipe((16, 16), 99, spread=True)), whole)


def test_batches_pad_short_volumes_and_keep_the_order(make_manifest: Callable[..., Manifest]) -> None:
    manifest = make_manifest(train=3, val=0, test=0)
    inputs = LabelledInputs(manifest, manifest.entries, InputRecipe((16, 16), 4))
    (volumes, labels), (rest, _) = batches(inputs, [2, 1, 0], 2)
    assert labels.tolist() == [0, 1]
    assert torch.equal(volumes[1], inputs[1][0])
    assert torch.equal(rest[0], inputs[0][0])


# --- what does not fit


def test_bad_options_are_refused_together() -> None:
    with pytest.raises(ValueError, match=r"epochs is 0.*momentum is 1.*schedule is 'cosin'; did you mean cosine\?"):
        VolumeClassification(epochs=0, momentum=1.0, schedule="cosin")
    with pytest.raises(ValueError, match=r"class_weights is 'even', expected balanced.*size is 64, expected two"):
        VolumeClassification(class_weights="even", size=64)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"class_weights is \(1, -1\), expected numbers above 0"):
        build_task("classification_3d", {"class_weights": [1, -1]})
    assert build_task("classification_3d", {"size": [32, 32], "levels": ["res1"]}) == VolumeClassification(
        size=(32, 32), levels=("res1",)
    )


def test_faults_of_data_and_starts_are_found_before_training(
    make_manifest: Callable[..., Manifest], make_job: Callable[..., Job]
) -> None:
    job = make_job(make_manifest())
    assert TINY.faults(job) == []
    ones = tuple(entry for entry in job.train if entry.label == 1)
    (fault,) = TINY.faults(replace(job, train=ones, validation=()))
    assert "the 4 training rows have only the classes [1]" in fault
    third = replace(job.test[0], label=3)
    (fault,) = TINY.faults(replace(job, test=(third,)))
    assert "no training row of 8 has the classes [2, 3]" in fault
    one_class = tuple(entry for entry in job.validation if entry.label == 1)
    (fault,) = TINY.faults(replace(job, validation=one_class))
    assert "the 2 validation rows have only the classes [1], so their AUC is undefined" in fault
    assert replace(TINY, select="last").faults(replace(job, validation=one_class)) == []
    (fault,) = replace(TINY, class_weights=(1.0, 1.0, 1.0)).faults(job)
    assert "options.class_weights has 3 numbers for 2 classes" in fault
    (fault,) = replace(TINY, preset="papper").faults(job)
    assert "did you mean paper?" in fault


def test_channels_are_chosen_and_missing_ones_named(
    make_manifest: Callable[..., Manifest], make_job: Callable[..., Job]
) -> None:
    manifest = make_manifest(shape=(2, 4, 16, 16))
    job = make_job(manifest)
    entry = job.train[0]
    second = read_input(manifest, entry, InputRecipe((16, 16), 4, channel=1))
    expected = (torch.tensor(manifest.open(entry)[1][:, None] / 255.0) - GREY_MEAN) / 0.226
    torch.testing.assert_close(second, expected.float())
    (fault,) = replace(TINY, channel=2).faults(job)
    assert "options.channel is 2, but 20 volumes such as 'v0' have only 2" in fault


def test_f_inter_along_the_embedding_axis_asks_for_its_number_of_slices(
    make_manifest: Callable[..., Manifest], make_job: Callable[..., Job]
) -> None:
    options = {"slices": 6, "offset_groups": 2, "heads": 2, "blocks": 1}
    torch.manual_seed(0)
    encoder = JointEncoder(("res1",), "embedding", 640, options)
    record = StageRecord(
        stage=3,
        flavour="swav",
        levels=("res1",),
        embedding_width=640,
        volume_encoder={"attention_axis": "embedding", **options},
    )
    checkpoint = Checkpoint(Path("a.torch"), dict(encoder.state_dict()), {}, record, None, None, True)
    start = Initialisation("stage3", Path("a.torch"), "0", {}, checkpoint)
    job = make_job(make_manifest(), initialisation=start)
    (fault,) = TINY.faults(job)
    assert "stage3: f_inter along the embedding axis reads exactly 6 slices; set options.slices=6" in fault
    task = replace(TINY, slices=6, epochs=1)
    assert task.faults(job) == []
    outcome = task.run(job)
    assert math.isfinite(outcome.metrics["auc"])
    assert all(torch.equal(value, checkpoint.trunk[name]) for name, value in encoder.state_dict().items())
