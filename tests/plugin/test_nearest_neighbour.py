"""The votes against a slow loop and scikit-learn; the limits of VISSL's own program are gone."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from vissl_jointssl.plugin import nearest_neighbour
from vissl_jointssl.plugin.extracted_features import Extraction, Features
from vissl_jointssl.plugin.nearest_neighbour import classify, top_accuracies, weighted_votes

# isort: split
from vissl.config import AttrDict

CPU = torch.device("cpu")


def settings(**changes: object) -> AttrDict:
    return AttrDict({"TOPK": 7, "SIGMA": 0.1, "L2_NORM_FEATS": True, **changes})


def blobs(count: int, classes: int, seed: int, spread: float = 1.5) -> Features:
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(classes, 10))
    targets = rng.integers(classes, size=count)
    values = centres[targets] + rng.normal(scale=spread, size=(count, 10))
    return Features(values.astype(np.float32), targets[:, None])


def test_the_votes_equal_a_loop_over_neighbours() -> None:
    torch.manual_seed(0)
    features, train = torch.randn(9, 5, dtype=torch.float64), torch.randn(30, 5, dtype=torch.float64)
    known = torch.arange(30) % 4
    votes = weighted_votes(features, train, known, classes=4, neighbours=6, temperature=0.5)
    for sample in range(9):
        similarities = [float(sum(a * b for a, b in zip(features[sample], one, strict=True))) for one in train]
        nearest = sorted(range(30), key=lambda place: -similarities[place])[:6]
        expected = [0.0] * 4
        for place in nearest:
            expected[int(known[place])] += math.exp((similarities[place] - similarities[nearest[0]]) / 0.5)
        torch.testing.assert_close(votes[sample], torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("count", [3, 99, 250])  # VISSL's program divides by n // 100
def test_any_number_of_samples_is_classified_as_by_scikit_learn(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearest_neighbour, "CHUNK", 64)
    train, test = blobs(120, 7, seed=0), blobs(count, 7, seed=1)
    oracle = KNeighborsClassifier(
        n_neighbors=7, metric="cosine", algorithm="brute", weights=lambda distance: np.exp((1 - distance) / 0.1)
    ).fit(train.values.astype(np.float64), train.targets[:, 0])
    probability = oracle.predict_proba(test.values.astype(np.float64))
    order = np.argsort(-probability, axis=1, kind="stable")
    found = classify(train, test, settings(), CPU)
    assert found["top1"] == pytest.approx(100 * (order[:, 0] == test.targets[:, 0]).mean())
    # Classes without a vote are tied at zero: only a class that has one is surely among the first five.
    voted = np.take_along_axis(probability, test.targets, axis=1)[:, 0] > 0
    assert found["top5"] >= 100 * (voted & (order[:, :5] == test.targets).any(axis=1)).mean() - 1e-4


def test_a_small_temperature_is_the_nearest_neighbour_alone_and_does_not_overflow() -> None:
    torch.manual_seed(0)
    train, known = torch.randn(40, 6) * 30, torch.arange(40) % 3
    votes = weighted_votes(torch.randn(20, 6) * 30, train, known, classes=3, neighbours=10, temperature=1e-3)
    assert votes.isfinite().all()
    torch.testing.assert_close(votes.max(dim=1).values, torch.ones(20), atol=1e-3, rtol=0)


def test_without_normalisation_long_vectors_win() -> None:
    train = Features(np.array([[1.0, 0.0], [5.0, 5.0]], dtype=np.float32), np.array([[0], [1]]))
    test = Features(np.array([[1.0, 0.0]], dtype=np.float32), np.array([[0]]))
    one = settings(TOPK=1)
    assert classify(train, test, one, CPU)["top1"] == 100
    assert classify(train, test, AttrDict({**one, "L2_NORM_FEATS": False}), CPU)["top1"] == 0


def test_accuracies_are_counted_by_rank_and_five_only_where_it_says_something() -> None:
    votes = torch.eye(6)[[0, 1, 2, 3]] + torch.linspace(0.6, 0.1, 6)
    assert top_accuracies(votes, torch.tensor([0, 0, 5, 3])) == {"top1": 50.0, "top5": 75.0}
    assert top_accuracies(votes[:, :5], torch.tensor([0, 0, 4, 3])) == {"top1": 50.0}


def test_the_results_are_written_beside_the_features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    splits = {"train": blobs(40, 3, seed=0), "test": blobs(10, 3, seed=1)}
    monkeypatch.setattr(nearest_neighbour, "read_features", lambda folder, split, layer: splits[split])
    config = AttrDict({"NEAREST_NEIGHBOR": settings(), "MACHINE": {"DEVICE": "cpu"}})
    results = nearest_neighbour.evaluate(Extraction(config, tmp_path, ["volume"]))
    assert set(results["volume"]) == {"top1"}
    assert json.loads((tmp_path / "nearest_neighbor.json").read_text()) == results


@pytest.mark.parametrize(
    ("changes", "targets", "message"),
    [
        ({"TOPK": 200}, [[0]], r"TOPK is 200, but there are 40 training samples to vote; set it from 1 to 40"),
        ({"TOPK": 0}, [[0]], "TOPK is 0, but there are 40 training samples"),
        ({"SIGMA": 0.0}, [[0]], r"SIGMA is 0\.0; a temperature is positive"),
        ({}, [[0, 1]], r"needs one class per sample, targets \(n, 1\); got targets \(1, 2\)"),
        ({}, [[-1]], "needs classes from 0; 1 targets are below"),
    ],
)
def test_what_cannot_be_classified_is_said(changes: dict[str, object], targets: list[list[int]], message: str) -> None:
    test = Features(np.zeros((1, 10), dtype=np.float32), np.array(targets))
    with pytest.raises(ValueError, match=message):
        classify(blobs(40, 3, seed=0), test, settings(**changes), CPU)
