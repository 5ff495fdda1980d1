"""VISSL's SVMs with class ids, against scikit-learn itself."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import average_precision_score
from sklearn.svm import LinearSVC

from vissl_jointssl.plugin import svm
from vissl_jointssl.plugin.extracted_features import Extraction, Features
from vissl_jointssl.plugin.svm import classify, one_hot

# isort: split
from vissl.config import AttrDict


def settings(**changes: object) -> AttrDict:
    values: dict[str, object] = {
        "normalize": True,
        "cls_list": [],
        "loss": "squared_hinge",
        "penalty": "l2",
        "dual": True,
        "max_iter": 2000,
        "cross_val_folds": 3,
        "costs": {"costs_list": [1.0], "base": -1.0, "power_range": [4, 20]},
        "force_retrain": False,
    }
    return AttrDict({**values, **changes})


def blobs(count: int, seed: int, classes: int = 3) -> Features:
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(classes, 8))
    targets = np.arange(count) % classes
    values = centres[targets] + rng.normal(scale=1.2, size=(count, 8))
    return Features(values.astype(np.float32), targets[:, None])


def test_class_ids_become_one_column_per_class_of_either_split() -> None:
    train = Features(np.zeros((3, 1), dtype=np.float32), np.array([[0], [2], [0]]))
    test = Features(np.zeros((2, 1), dtype=np.float32), np.array([[1], [3]]))
    known, wanted = one_hot(train, test)
    assert known.tolist() == [[1, 0, 0, 0], [0, 0, 1, 0], [1, 0, 0, 0]]
    assert wanted.tolist() == [[0, 1, 0, 0], [0, 0, 0, 1]]


def test_multi_label_targets_stay_as_they_are() -> None:
    labels = Features(np.zeros((2, 1), dtype=np.float32), np.array([[1, 1, 0], [0, -1, 1]]))
    known, wanted = one_hot(labels, labels)
    assert known is labels.targets
    assert wanted is labels.targets


def test_precision_and_accuracy_are_those_of_scikit_learns_svms(tmp_path: Path) -> None:
    train, test = blobs(60, seed=0), blobs(45, seed=1)
    result = classify(train, test, settings(), "volume", tmp_path)
    samples = [one / (np.linalg.norm(one, axis=1, keepdims=True) + 1e-5) for one in (train.values, test.values)]
    scores = []
    for number in range(3):
        labels = np.where(train.targets[:, 0] == number, 1, -1)
        oracle = LinearSVC(C=1.0, class_weight={1: 2, -1: 1}, dual=False, tol=1e-6).fit(samples[0], labels)
        scores.append(oracle.decision_function(samples[1]))
        expected = average_precision_score(test.targets[:, 0] == number, scores[-1])
        assert result["ap"][number] == pytest.approx(100 * expected, abs=2.0)  # VISSL's curve has a monotone envelope
    accuracy = (np.argmax(scores, axis=0) == test.targets[:, 0]).mean()
    assert result["accuracy"] == pytest.approx(100 * accuracy, abs=2.3)  # one of 45 may lie on the border
    assert result["mean_ap"] == pytest.approx(np.mean(result["ap"]), abs=1e-2)


def test_the_cost_is_chosen_by_cross_validation(tmp_path: Path) -> None:
    costs = {"costs_list": [1e-7, 1.0], "base": -1.0, "power_range": [4, 20]}
    classify(blobs(60, seed=0), blobs(30, seed=1), settings(costs=costs), "volume", tmp_path)
    crossval = np.load(tmp_path / "volume" / "crossval_ap.npy")
    chosen = np.load(tmp_path / "volume" / "chosen_cost.npy")
    assert crossval.shape == (3, 2)
    assert chosen.tolist() == [costs["costs_list"][place] for place in crossval.argmax(axis=1)]
    assert costs["costs_list"] == [1e-7, 1.0]


def test_nothing_of_an_earlier_run_is_taken_over(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    noise = Features(rng.normal(size=(60, 8)).astype(np.float32), blobs(60, seed=0).targets)
    classify(noise, blobs(30, seed=1), settings(), "volume", tmp_path)
    again = classify(blobs(60, seed=0), blobs(30, seed=1), settings(), "volume", tmp_path)
    alone = classify(blobs(60, seed=0), blobs(30, seed=1), settings(), "volume", tmp_path / "alone")
    assert again["ap"] == pytest.approx(alone["ap"], abs=2.0)
    assert again["mean_ap"] > 60


def test_some_classes_can_be_chosen(tmp_path: Path) -> None:
    every = classify(blobs(60, seed=0), blobs(45, seed=1), settings(), "volume", tmp_path / "every")
    some = classify(blobs(60, seed=0), blobs(45, seed=1), settings(cls_list=[2, 0]), "volume", tmp_path / "some")
    assert some["ap"] == pytest.approx([every["ap"][2], every["ap"][0]], abs=2.0)
    assert "accuracy" not in some


def test_an_error_in_training_is_not_swallowed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="penalty"):
        classify(blobs(60, seed=0), blobs(30, seed=1), settings(penalty="l3"), "volume", tmp_path)


@pytest.mark.parametrize(
    ("train", "test", "changes", "message"),
    [
        (7, 6, {}, r"class 1 has 2 of 7 training samples, but .*cross_val_folds=3 needs 3 in it and 3 outside"),
        (60, 2, {}, "class 2 has no test sample, so its average precision is undefined"),
        (60, 6, {"cls_list": [3]}, r"cls_list names class 3; there are classes 0 to 2"),
    ],
)
def test_a_class_that_cannot_be_trained_or_tested_is_named(
    tmp_path: Path, train: int, test: int, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        classify(blobs(train, seed=0), blobs(test, seed=1), settings(**changes), "volume", tmp_path)


def test_the_results_are_written_beside_the_features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    splits = {"train": blobs(60, seed=0), "test": blobs(30, seed=1)}
    monkeypatch.setattr(svm, "read_features", lambda folder, split, layer: splits[split])
    results = svm.evaluate(Extraction(AttrDict({"SVM": settings()}), tmp_path, ["volume"]))
    assert set(results["volume"]) == {"mean_ap", "ap", "accuracy"}
    assert json.loads((tmp_path / "svm.json").read_text()) == results
