"""The two classifiers of a probe, scikit-learn's, and how the linear one's strength is chosen."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

C_GRID = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
FALLBACK_C = 0.01
FOLDS = 5
_ITERATIONS = 2000
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Samples:
    """Labelled features.

    Attributes:
        features: `(samples, width)`.
        labels: Class numbers from 0, `(samples,)`.
        ids: Row of each.
        patients: Of each.
    """

    features: np.ndarray
    labels: np.ndarray
    ids: Sequence[str]
    patients: Sequence[str]


def standardised(train: Samples, *others: Samples) -> tuple[Samples, ...]:
    """Every feature less its mean over the training samples, divided by its deviation there; a constant one is 0."""
    centre = train.features.mean(axis=0, dtype=np.float64)
    deviation = train.features.std(axis=0, dtype=np.float64)
    # A constant feature deviates by rounding alone, which division would blow up.
    constant = deviation <= 1e-6 * np.maximum(np.abs(centre), 1e-12)
    deviation = np.where(constant, np.inf, deviation)
    return tuple(replace(s, features=(s.features - centre) / deviation) for s in (train, *others))


def choose_c(grid: Sequence[float], balanced: bool, train: Samples, validation: Samples) -> float:
    """The strength of the smallest log loss on samples that were not fitted.

    Those are the validation samples, where there are any. Else the training patients are dealt into five parts, each
    left out in turn; a part without which a class would be missing is not. Of equals, the smaller C.

    Returns:
        0.01 if no part can be left out, which the log says.
    """
    if len(grid) == 1:
        return grid[0]
    folds = [(train, validation)] if len(validation.labels) else list(_folds(train))
    if not folds:
        _log.warning("C is %g, unchosen: no patients can be left out without losing a class", FALLBACK_C)
        return FALLBACK_C
    losses = {strength: sum(_log_loss(strength, balanced, *fold) for fold in folds) for strength in sorted(grid)}
    return min(losses, key=losses.__getitem__)


def linear_probabilities(strength: float, balanced: bool, train: Samples, features: np.ndarray) -> np.ndarray:
    """Logistic regression fitted on the training samples: probabilities `(n, classes)` of features `(n, width)`."""
    from sklearn.linear_model import LogisticRegression

    weights = "balanced" if balanced else None
    model = LogisticRegression(C=strength, class_weight=weights, max_iter=_ITERATIONS)
    found: np.ndarray = model.fit(train.features, train.labels).predict_proba(features)
    return found


def neighbour_probabilities(k: int, train: Samples, features: np.ndarray) -> np.ndarray:
    """Share of each class among the k nearest training samples by cosine, `(n, classes)`."""
    from sklearn.neighbors import KNeighborsClassifier

    model = KNeighborsClassifier(n_neighbors=k, metric="cosine", algorithm="brute")
    found: np.ndarray = model.fit(train.features, train.labels).predict_proba(features)
    return found


def _log_loss(strength: float, balanced: bool, train: Samples, left_out: Samples) -> float:
    """Sum over the samples left out, so that larger parts count more."""
    probabilities = linear_probabilities(strength, balanced, train, left_out.features)
    true = probabilities[np.arange(len(left_out.labels)), left_out.labels]
    return float(-np.log(np.maximum(true, 1e-15)).sum())


def _folds(train: Samples) -> Iterator[tuple[Samples, Samples]]:
    """`(fitted, left out)`, whole patients, every class in what is fitted."""
    from sklearn.model_selection import GroupKFold

    patients = len(set(train.patients))
    if patients < 2:
        return
    classes = np.unique(train.labels)
    for kept, left in GroupKFold(min(FOLDS, patients)).split(train.features, groups=train.patients):
        if np.array_equal(np.unique(train.labels[kept]), classes):
            yield _subset(train, kept), _subset(train, left)


def _subset(samples: Samples, rows: np.ndarray) -> Samples:
    return Samples(
        samples.features[rows],
        samples.labels[rows],
        [samples.ids[row] for row in rows],
        [samples.patients[row] for row in rows],
    )
