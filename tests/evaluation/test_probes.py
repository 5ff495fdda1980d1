"""Probes of frozen features: slices, images and volumes, without training what gives the features."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

from vissl_jointssl.checkpoints import Checkpoint, StageRecord
from vissl_jointssl.evaluation.initialisation import Initialisation
from vissl_jointssl.evaluation.plan import read_plan
from vissl_jointssl.evaluation.probe_classifiers import (
    Samples,
    choose_c,
    linear_probabilities,
    neighbour_probabilities,
    standardised,
)
from vissl_jointssl.evaluation.probes import Probe
from vissl_jointssl.evaluation.task import Job, Outcome
from vissl_jointssl.evaluation.tasks import build_task
from vissl_jointssl.manifest import Entry, Manifest, read_manifest, write_manifest
from vissl_jointssl.models.joint_encoder import JointEncoder

TINY = Probe(size=(16, 16), slices=3, k=3, levels=("res1",), c=(0.01, 1.0))


def entry_of(folder: Path, name: str, kind: str, array: np.ndarray, label: int, split: str) -> Entry:
    path = folder / (f"{name}.npy" if kind == "volume" else f"{name}.png")
    if kind == "volume":
        np.save(path, array)
    else:
        Image.fromarray(array).save(path)
    return Entry(
        id=name,
        kind=kind,
        path=path.name,
        label_path=None,
        label=label,
        split=split,
        patient=name,
        modality="CT",
        spacing=None,
        shape=array.shape,
        dtype="uint8",
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
    )


@pytest.fixture
def make_manifest(tmp_path: Path) -> Callable[..., Manifest]:
    """Volumes of 4 or 5 slices with a bright slab, upright or lying; with `images`, a grey and an RGB image as well."""

    def make(train: int = 10, val: int = 4, test: int = 8, images: bool = False) -> Manifest:
        rng = np.random.default_rng(0)
        entries = []
        for number in range(train + val + test):
            split = "train" if number < train else "val" if number < train + val else "test"
            label = number % 2
            volume = rng.normal(0.3, 0.05, (4 + number % 2, 16, 16))
            place = rng.integers(0, 8)
            volume[(slice(None), slice(place, place + 6)) if label else (..., slice(place, place + 6))] += 0.5
            array = (volume.clip(0, 1) * 255).astype(np.uint8)
            entries.append(entry_of(tmp_path, f"v{number}", "volume", array, label, split))
        if images:
            entries.append(entry_of(tmp_path, "grey", "image", array[0], label, "train"))
            entries.append(entry_of(tmp_path, "rgb", "image", np.stack([array[1]] * 3, axis=-1), label, "train"))
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
        return replace(job, **changes)

    return make


@pytest.fixture(scope="module")
def stage3() -> Initialisation:
    torch.manual_seed(0)
    options = {"downsample": [1], "heads": 1, "head_width": 8, "offset_groups": 1, "feed_forward_width": 16}
    encoder = JointEncoder(("res1",), "slice", 32, options)
    record = StageRecord(
        stage=3,
        flavour="swav",
        levels=("res1",),
        embedding_width=32,
        volume_encoder={"attention_axis": "slice", **options},
    )
    blocks = encoder.slice_encoder.state_dict()
    checkpoint = Checkpoint(Path("a.torch"), dict(encoder.state_dict()), {}, record, None, None, True)
    return Initialisation("stage3", Path("a.torch"), "0", dict(blocks), checkpoint)


def numbers(outcome: Outcome) -> tuple[object, ...]:
    return dict(outcome.metrics), outcome.cases


@pytest.mark.parametrize("of", ["slices", "volumes"])
def test_frozen_features_tell_upright_from_lying_slabs(
    make_manifest: Callable[..., Manifest], make_job: Callable[..., Job], of: str
) -> None:
    job = make_job(make_manifest(train=20))
    outcome = replace(TINY, of=of).run(job)
    assert outcome.metrics["linear_auc"] > 0.9
    assert outcome.metrics["knn_auc"] > 0.8
    assert outcome.cases.keys() == {entry.id for entry in job.test}
    assert outcome.cases["v24"].keys() == {
        "linear_probability_true",
        "linear_correct",
        "knn_probability_true",
        "knn_correct",
    }


def test_volumes_go_through_f_inter_where_the_start_has_one_and_nothing_trains(
    make_manifest: Callable[..., Manifest], make_job: Callable[..., Job], stage3: Initialisation
) -> None:
    job = make_job(make_manifest(), initialisation=stage3)
    assert stage3.checkpoint is not None
    before = {name: value.clone() for name, value in stage3.checkpoint.trunk.items()}
    replace(TINY, of="volumes").run(job)
    (path,) = job.folder.glob("features_test_*.npy")
    features = np.load(path)
    assert features.shape == (8, 32)  # D, and not E = 64
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, atol=1e-5)
    assert all(torch.equal(value, before[name]) for name, value in stage3.checkpoint.trunk.items())


def test_volumes_without_f_inter_are_the_mean_of_their_slices_or_pass_a_random_one(
    make_manifest: Callable[..., Manifest], make_job: Callable[..., Job]
) -> None:
    job = make_job(make_manifest())
    replace(TINY, of="volumes", slices=5).run(job)
    (path,) = job.folder.glob("features_test_*.npy")
    means = np.load(path)
    assert means.shape == (8, 64)
    slices_job = make_job(job.manifest, "slices")
    replace(TINY, of="slices", slices=5).run(slices_job)
    (path,) = slices_job.folder.glob("features_test_*.npy")
    slices = np.load(path)
    mean = slices[: job.test[0].shape[0]].mean(axis=0)
    np.testing.assert_allclose(means[0], mean / np.linalg.norm(mean), atol=1e-5)
    random_job = make_job(job.manifest, "random")
    replace(TINY, of="volumes", without_volume_encoder="random").run(random_job)
    (path,) = random_job.folder.glob("features_test_*.npy")
    assert np.load(path).shape == (8, 640)


def test_slices_carry_the_class_of_their_volume_and_images_count_as_one(
    make_manifest: Callable[..., Manifest], make_job: Callable[..., Job]
) -> None:
    manifest = make_manifest(images=True)
    job = make_job(manifest)
    assert all(TINY.is_labelled(entry) for entry in job.train)
    assert not replace(TINY, of="volumes").is_labelled(manifest.entries[-1])
    assert TINY.faults(job) == []
    TINY.run(job)
    (path,) = job.folder.glob("features_train_*.npy")
    features = np.load(path)
    assert features.shape == (10 * 3 + 2, 64)
    # the two images are the first slices of the last volume, once grey and once in equal colours
    TINY.run(make_job(manifest, "last", train=(*job.train, job.test[-1])))
    (path,) = (job.folder.parent / "last").glob("features_train_*.npy")
    np.testing.assert_allclose(np.load(path)[-3], features[-2], atol=1e-5)


def test_features_are_computed_once_and_again_where_anything_changed(
    make_manifest: Callable[..., Manifest], make_job: Callable[..., Job]
) -> None:
    job = make_job(make_manifest())
    first = TINY.run(job)
    files = {path: path.stat().st_mtime_ns for path in job.folder.glob("*.npy")}
    assert len(files) == 3
    assert numbers(TINY.run(job)) == numbers(first)
    assert {path: path.stat().st_mtime_ns for path in job.folder.glob("*.npy")} == files
    replace(TINY, slices=2).run(job)
    replace(TINY, slices=2).run(replace(job, seed=1))
    changed = set(job.folder.glob("*.npy"))
    assert len(changed) == 3
    assert not changed & files.keys()


def test_a_killed_probe_goes_on_and_gives_what_an_undisturbed_one_gives(
    make_manifest: Callable[..., Manifest], make_job: Callable[..., Job]
) -> None:
    class Killed(BaseException):
        pass

    def kill(what: str, done: int, total: int) -> None:
        if "test" in what:
            raise Killed

    manifest = make_manifest()
    undisturbed = TINY.run(make_job(manifest, "whole"))
    with pytest.raises(Killed):
        TINY.run(make_job(manifest, "killed", progress=kill))
    assert numbers(TINY.run(make_job(manifest, "killed"))) == numbers(undisturbed)


# --- classifiers


@pytest.fixture(scope="module")
def samples() -> tuple[Samples, Samples]:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 90)
    features = rng.normal(size=(90, 6)) * 5 + 2 + labels[:, None] * np.array([3, 0, 0, 0, 0, 0])
    features[:, 5] = 0.1  # constant
    names = [f"p{number // 3}" for number in range(90)]
    return (
        Samples(features[:60].astype(np.float32), labels[:60], names[:60], names[:60]),
        Samples(features[60:].astype(np.float32), labels[60:], names[60:], names[60:]),
    )


def test_features_are_standardised_by_the_training_samples_alone(samples: tuple[Samples, Samples]) -> None:
    train, test = standardised(*samples)
    scaler = StandardScaler().fit(samples[0].features[:, :5])
    np.testing.assert_allclose(train.features[:, :5], scaler.transform(samples[0].features[:, :5]), atol=1e-5)
    np.testing.assert_allclose(test.features[:, :5], scaler.transform(samples[1].features[:, :5]), atol=1e-5)
    assert not train.features[:, 5].any()
    assert not test.features[:, 5].any()


def test_neighbours_vote_by_cosine(samples: tuple[Samples, Samples]) -> None:
    train, test = standardised(*samples)
    found = neighbour_probabilities(5, train, test.features)
    for row, feature in zip(found, test.features, strict=True):
        cosines = [float(feature @ other / np.linalg.norm(feature) / np.linalg.norm(other)) for other in train.features]
        nearest = np.argsort(cosines)[-5:]
        votes = [np.mean(train.labels[nearest] == number) for number in range(3)]
        np.testing.assert_allclose(row, votes)


def test_the_linear_classifier_is_at_the_minimum_of_its_loss(samples: tuple[Samples, Samples]) -> None:
    train, test = standardised(*samples)
    found = linear_probabilities(0.1, False, train, test.features)
    assert roc_auc_score(test.labels, found, multi_class="ovr") > 0.6
    # the same optimum by PyTorch: cross-entropy * C + |w|^2 / 2
    weight = torch.zeros(6, 3, dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=500, tolerance_grad=1e-10, line_search_fn="strong_wolfe")
    features, labels = torch.tensor(train.features, dtype=torch.float64), torch.tensor(train.labels)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = 0.1 * torch.nn.functional.cross_entropy(features @ weight + bias, labels, reduction="sum")
        loss = loss + weight.square().sum() / 2
        loss.backward()
        return loss

    optimizer.step(closure)
    expected = (torch.tensor(test.features, dtype=torch.float64) @ weight + bias).softmax(dim=1).detach().numpy()
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_c_is_chosen_on_validation_samples_where_there_are_any(samples: tuple[Samples, Samples]) -> None:
    train, validation = standardised(*samples)
    grid = (1e-5, 1e-2, 1e3)
    losses = {}
    for strength in grid:
        model = LogisticRegression(C=strength, max_iter=2000).fit(train.features, train.labels)
        true = model.predict_proba(validation.features)[np.arange(30), validation.labels]
        losses[strength] = -np.log(true).mean()
    assert choose_c(grid, False, train, validation) == min(losses, key=losses.__getitem__)
    assert choose_c((7.0,), False, train, validation) == 7.0


def test_c_is_else_chosen_on_whole_patients_left_out() -> None:
    # Two slices a patient, equal but for noise, and classes by chance: a patient on both sides would reward a large C.
    rng = np.random.default_rng(0)
    of_patient = rng.normal(size=(40, 30))
    labels = np.repeat(rng.integers(0, 2, 40), 2)
    features = np.repeat(of_patient, 2, axis=0) + rng.normal(size=(80, 30)) * 0.01
    none = Samples(np.zeros((0, 30)), np.zeros(0, dtype=int), [], [])
    patients = [f"p{number // 2}" for number in range(80)]
    assert choose_c((1e-4, 1e3), False, Samples(features, labels, patients, patients), none) == 1e-4
    twins_apart = ["a", "b"] * 40
    assert choose_c((1e-4, 1e3), False, Samples(features, labels, twins_apart, twins_apart), none) == 1e3


def test_c_falls_back_with_a_warning_where_no_patient_can_be_left_out(caplog: pytest.LogCaptureFixture) -> None:
    train = Samples(np.eye(2), np.array([0, 1]), ["a", "b"], ["a", "b"])
    none = Samples(np.zeros((0, 2)), np.zeros(0, dtype=int), [], [])
    assert choose_c((1.0, 10.0), False, train, none) == 0.01
    assert "C is 0.01, unchosen" in caplog.text


# --- what does not fit


def test_bad_options_are_refused_together() -> None:
    with pytest.raises(ValueError, match=r"of is 'volume'; did you mean volumes\?.*k is 0.*c is \(\), expected"):
        Probe(of="volume", k=0, c=())
    assert build_task("probe", {"c": [0.1], "size": [8, 8]}) == Probe(c=(0.1,), size=(8, 8))


def test_faults_of_data_are_found_before_features(
    make_manifest: Callable[..., Manifest], make_job: Callable[..., Job], stage3: Initialisation
) -> None:
    job = make_job(make_manifest())
    assert replace(TINY, of="volumes").faults(replace(job, initialisation=stage3)) == []
    (fault,) = replace(TINY, k=31).faults(job)
    assert "30 training slices are fewer than options.k=31; set options.k=30" in fault
    (fault,) = replace(TINY, of="volumes", k=11).faults(job)
    assert "10 training volumes are fewer than options.k=11" in fault
    (fault,) = TINY.faults(replace(job, train=job.train[::2]))
    assert "training rows have only the classes [0]" in fault
    (fault,) = replace(TINY, levels=("res9",)).faults(job)
    assert "unknown level 'res9'" in fault


@pytest.mark.parametrize("name", ["probe_slices", "probe_volumes", "luna2016_v2", "adrenalmnist3d"])
def test_the_shipped_evaluations_are_plans_of_tasks_that_exist(root: Path, name: str) -> None:
    plan = read_plan(root / "configs" / "evaluation" / f"{name}.yaml")
    assert plan.name == name
    assert build_task(plan.task, plan.options)
