"""AUC and accuracies against scikit-learn, torchmetrics and counting pairs."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, balanced_accuracy_score, roc_auc_score
from torchmetrics.functional import auroc

from vissl_jointssl.evaluation.metrics.classes import (
    accuracy,
    auc,
    auc_interval,
    balanced_accuracy,
    class_auc,
    class_cases,
    class_metrics,
)


def counted_auc(scores: np.ndarray, positive: np.ndarray) -> float:
    """Every pair by hand."""
    won = 0.0
    pairs = 0
    for mine, is_positive in zip(scores, positive, strict=True):
        for other, other_positive in zip(scores, positive, strict=True):
            if is_positive and not other_positive:
                pairs += 1
                won += 1.0 if mine > other else 0.5 if mine == other else 0.0
    return won / pairs


def softmax(rng: np.random.Generator, cases: int, classes: int, decimals: int = 12) -> np.ndarray:
    logits = rng.normal(size=(cases, classes)).round(decimals)
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


@pytest.mark.parametrize("decimals", [0, 1, 12], ids=["many ties", "some ties", "none"])
@pytest.mark.parametrize("seed", range(5))
def test_auc_counts_pairs_with_ties_as_halves(seed: int, decimals: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=83).round(decimals)
    positive = rng.random(83) < 0.3
    assert auc(scores, positive) == pytest.approx(counted_auc(scores, positive), abs=1e-12)
    assert auc(scores, positive) == pytest.approx(roc_auc_score(positive, scores), abs=1e-12)


def test_auc_is_one_half_where_all_scores_are_equal_and_turns_round_with_the_scores() -> None:
    rng = np.random.default_rng(0)
    scores, positive = rng.normal(size=50), rng.random(50) < 0.5
    assert auc(np.zeros(50), positive) == 0.5
    assert auc(-scores, positive) == pytest.approx(1 - auc(scores, positive), abs=1e-12)
    assert auc(np.exp(scores), positive) == auc(scores, positive)


def test_auc_needs_a_case_of_each_kind() -> None:
    assert math.isnan(auc(np.array([0.1, 0.9]), np.array([True, True])))
    assert math.isnan(auc(np.array([0.1, 0.9]), np.array([False, False])))
    assert math.isnan(auc(np.zeros(0), np.zeros(0, dtype=bool)))


def test_auc_refuses_what_it_cannot_rank() -> None:
    with pytest.raises(ValueError, match=r"1 of 2 scores are NaN; look at the training loss"):
        auc(np.array([0.1, math.nan]), np.array([True, False]))
    with pytest.raises(ValueError, match=r"scores \(2,\) and labels \(3,\) do not fit"):
        auc(np.zeros(2), np.zeros(3, dtype=bool))


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_auc_of_classes_is_the_mean_of_each_against_the_rest(classes: int) -> None:
    rng = np.random.default_rng(classes)
    probabilities, labels = softmax(rng, 90, classes), rng.integers(0, classes, 90)
    found = class_auc(probabilities, labels)
    if classes == 2:
        assert found == pytest.approx(roc_auc_score(labels, probabilities[:, 1]), abs=1e-12)
        assert found == pytest.approx(counted_auc(probabilities[:, 1], labels == 1), abs=1e-12)
        return
    assert found == pytest.approx(roc_auc_score(labels, probabilities, multi_class="ovr"), abs=1e-12)
    other = auroc(torch.tensor(probabilities), torch.tensor(labels), task="multiclass", num_classes=classes)
    assert found == pytest.approx(float(other), abs=1e-6)


def test_auc_of_classes_is_undefined_where_a_class_has_no_case() -> None:
    rng = np.random.default_rng(0)
    assert math.isnan(class_auc(softmax(rng, 20, 3), rng.integers(0, 2, 20)))
    metrics = class_metrics(softmax(rng, 20, 2), np.zeros(20, dtype=int))
    assert all(math.isnan(metrics[name]) for name in ("auc", "auc_low", "auc_high"))
    assert 0 <= metrics["accuracy"] <= 1


@pytest.mark.parametrize("classes", [2, 4])
def test_accuracies_are_scikit_learns(classes: int) -> None:
    rng = np.random.default_rng(classes)
    probabilities = softmax(rng, 70, classes)
    labels = np.minimum(rng.integers(0, 2 * classes, 70), classes - 1)  # the last class is the largest
    guesses = probabilities.argmax(axis=1)
    assert accuracy(probabilities, labels) == pytest.approx(accuracy_score(labels, guesses), abs=1e-12)
    assert balanced_accuracy(probabilities, labels) == pytest.approx(
        balanced_accuracy_score(labels, guesses), abs=1e-12
    )
    assert accuracy(probabilities, labels) != balanced_accuracy(probabilities, labels)


def test_the_interval_holds_the_auc_and_is_as_wide_as_its_standard_error_says() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(200) % 2
    scores = rng.normal(size=200) + labels
    probabilities = np.stack([-scores, scores], axis=1)
    low, high = auc_interval(probabilities, labels)
    area = class_auc(probabilities, labels)
    assert low < area < high
    # Hanley and McNeil (1982), the standard error of an AUC of this size
    q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)
    error = math.sqrt((area * (1 - area) + 99 * (q1 - area**2) + 99 * (q2 - area**2)) / 100**2)
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.15)
    assert auc_interval(probabilities, labels) == (low, high)


def test_a_case_is_judged_by_its_true_class_and_slices_of_one_are_averaged() -> None:
    probabilities = np.array([[0.9, 0.1], [0.4, 0.6], [0.3, 0.7]])
    cases = class_cases(["a", "b", "b"], probabilities, np.array([0, 0, 0]))
    assert cases["a"] == {"probability_true": 0.9, "correct": 1.0}
    assert cases["b"] == {"probability_true": pytest.approx(0.35), "correct": 0.0}


def test_labels_that_are_no_class_are_refused() -> None:
    with pytest.raises(ValueError, match=r"labels \[2\] have no column among the 2 classes"):
        class_metrics(np.full((3, 2), 0.5), np.array([0, 1, 2]))
    with pytest.raises(ValueError, match=r"probabilities \(3, 2\) do not fit labels \(2,\)"):
        class_metrics(np.full((3, 2), 0.5), np.array([0, 1]))
