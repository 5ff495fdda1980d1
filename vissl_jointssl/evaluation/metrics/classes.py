"""Metrics of classification: area under the ROC curve, accuracy, balanced accuracy; per case and over all.

What is undefined is NaN, by these rules:

* AUC of two classes needs a case of each; that of several classes (macro, one against the rest) a case of every class,
  because a mean over other classes in one test set than in another would not be one number.
* Balanced accuracy is the mean recall of the classes that the cases have, as in scikit-learn; with no case, NaN.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

CONFIDENCE = 0.95
RESAMPLES = 1000


def auc(scores: np.ndarray, positive: np.ndarray) -> float:
    """Area under the ROC curve: how often a positive case scores above a negative one, ties counting one half.

    By ranks, O(n log n): LUNA16's 225,475 candidates make 10^8 pairs.

    Args:
        scores: Larger means more likely positive, `(n,)`.
        positive: True for positive cases, `(n,)`.

    Returns:
        In [0, 1]; NaN if either kind of case is missing.

    Raises:
        ValueError: If the shapes do not fit, or a score is NaN.
    """
    scores, positive = np.asarray(scores, dtype=np.float64), np.asarray(positive, dtype=bool)
    if scores.ndim != 1 or scores.shape != positive.shape:
        raise ValueError(f"scores {scores.shape} and labels {positive.shape} do not fit; expected one of each per case")
    if np.isnan(scores).any():
        raise ValueError(f"{int(np.isnan(scores).sum())} of {len(scores)} scores are NaN; look at the training loss")
    # Cases of equal score form a step of the curve.
    _, step = np.unique(scores, return_inverse=True)
    positives = np.bincount(step, weights=positive)
    negatives = np.bincount(step, weights=~positive)
    pairs = positives.sum() * negatives.sum()
    if pairs == 0:
        return math.nan
    below = np.cumsum(negatives) - negatives
    return float((positives * (below + negatives / 2)).sum() / pairs)


def class_auc(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """AUC of any number of classes: of two, that of class 1; of more, the mean of each against the rest.

    Args:
        probabilities: `(n, classes)`.
        labels: Class numbers, `(n,)`.

    Returns:
        NaN if a class has no case.
    """
    if probabilities.shape[1] == 2:
        return auc(probabilities[:, 1], labels == 1)
    return float(np.mean([auc(probabilities[:, number], labels == number) for number in range(probabilities.shape[1])]))


def auc_interval(probabilities: np.ndarray, labels: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """95 % percentile interval of `class_auc`, by bootstrap over cases.

    Every class keeps its number of cases: 459 of LUNA16's 225,475 are nodules, and of a small set a class might vanish.
    It says how much the number depends on who was tested; how much on the training, the seeds say.

    Returns:
        `(nan, nan)` if `class_auc` is NaN.
    """
    if math.isnan(class_auc(probabilities, labels)):
        return math.nan, math.nan
    rng = np.random.default_rng(seed)
    rows = [np.flatnonzero(labels == number) for number in range(probabilities.shape[1])]
    found = []
    for _ in range(RESAMPLES):
        drawn = np.concatenate([rng.choice(of_class, len(of_class)) for of_class in rows])
        found.append(class_auc(probabilities[drawn], labels[drawn]))
    low, high = np.quantile(found, ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2))
    return float(low), float(high)


def accuracy(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Share of cases whose most probable class is theirs; NaN with no case."""
    return float((probabilities.argmax(axis=1) == labels).mean()) if len(labels) else math.nan


def balanced_accuracy(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean over the classes that the cases have of the share of each that is found; NaN with no case."""
    found = probabilities.argmax(axis=1) == labels
    return float(np.mean([found[labels == number].mean() for number in np.unique(labels)])) if len(labels) else math.nan


def class_metrics(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """`auc` with its interval `auc_low` to `auc_high`, `accuracy` and `balanced_accuracy` over all cases.

    Args:
        probabilities: `(n, classes)`.
        labels: Class numbers, `(n,)`.

    Raises:
        ValueError: If the shapes do not fit, a label is no class, or a probability is NaN.
    """
    probabilities, labels = np.asarray(probabilities, dtype=np.float64), np.asarray(labels)
    if probabilities.ndim != 2 or labels.shape != probabilities.shape[:1]:
        raise ValueError(f"probabilities {probabilities.shape} do not fit labels {labels.shape}; expected a row each")
    strange = sorted({int(label) for label in labels if not 0 <= label < probabilities.shape[1]})
    if strange:
        raise ValueError(f"labels {strange} have no column among the {probabilities.shape[1]} classes")
    low, high = auc_interval(probabilities, labels)
    return {
        "auc": class_auc(probabilities, labels),
        "auc_low": low,
        "auc_high": high,
        "accuracy": accuracy(probabilities, labels),
        "balanced_accuracy": balanced_accuracy(probabilities, labels),
    }


def class_cases(ids: Sequence[str], probabilities: np.ndarray, labels: np.ndarray) -> dict[str, dict[str, float]]:
    """Per case, so that starts can be paired: the probability of its true class, and 1 where that is the largest.

    An id that several rows of `probabilities` share, such as a volume of which every slice is judged, gets their means.
    """
    rows: dict[str, list[int]] = {}
    for number, name in enumerate(ids):
        rows.setdefault(name, []).append(number)
    true = probabilities[np.arange(len(labels)), labels]
    correct = probabilities.argmax(axis=1) == labels
    return {
        name: {"probability_true": float(true[chosen].mean()), "correct": float(correct[chosen].mean())}
        for name, chosen in rows.items()
    }
