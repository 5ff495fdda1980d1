"""Scans that are far from the others of their set: not wrong by themselves, but unlike what training will see."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from vissl_jointssl.preparation.doctor.diagnosis import Diagnosis, of_whole_set, warning
from vissl_jointssl.preparation.doctor.facts import Facts

_FEWEST = 10  # below it, a median says little
_FAR = 6.0  # robust standard deviations
_RARE = 0.05  # of a group; more are no outliers but another kind, which one line says
_MAD_TO_SIGMA = 1.4826  # of a normal distribution
# The least spread that counts as one deviation, so that a set of equal scans does not make an outlier of a near one:
# lengths differ by 1.12^6 = 2 at least, brightness of MR by 1.5^6 = 11, CT by 600 HU, prepared values by 0.6 of [0, 1].
_LENGTH_SPREAD = math.log(1.12)
_SCALE_SPREAD = math.log(1.5)
_HU_SPREAD = 100.0
_UNIT_SPREAD = 0.1
_LOOK = "look at it (--preview) and see whether it belongs to the set"


def outlier_diagnoses(facts: Sequence[Facts], *, prepared: bool) -> list[Diagnosis]:
    """Compare voxel sizes, shapes and intensities within each kind and modality of at least ten scans.

    Args:
        facts: Of the whole set.
        prepared: Whether values stand for [0, 1] or are a scanner's.
    """
    groups: dict[tuple[str, str], list[Facts]] = {}
    for one in facts:
        groups.setdefault((one.kind, one.modality), []).append(one)
    found = []
    for (kind, modality), group in sorted(groups.items()):
        if len(group) < _FEWEST:
            continue
        found += _far(group, _voxel, _LENGTH_SPREAD, lambda one: "voxels of " + _mm(one))
        if kind == "volume":
            found += _far(group, _lengths, _LENGTH_SPREAD, lambda one: "a shape of " + _times(one.grid_shape))
        if prepared:
            found += _far(group, _unit_mean, _UNIT_SPREAD, lambda one: f"a mean of {_unit_mean(one)[0]:.2f} of [0, 1]")
        elif modality == "CT":
            found += _far(group, _top, _HU_SPREAD * 10, _says_top)
            found += _far(group, _mean, _HU_SPREAD, lambda one: f"a mean of {one.values.mean:.0f} HU")
        elif modality == "MR":
            found += _far(group, _log_top, _SCALE_SPREAD, _says_top)
    return found


def robust_distances(numbers: np.ndarray, least_spread: float) -> np.ndarray:
    """How many deviations each number lies from the median; a deviation is 1.4826 MAD, or `least_spread` if larger."""
    median = np.median(numbers)
    spread = max(least_spread, _MAD_TO_SIGMA * float(np.median(np.abs(numbers - median))))
    return np.abs(numbers - median) / spread


def _far(
    group: Sequence[Facts],
    measure: Callable[[Facts], tuple[float, ...]],
    least_spread: float,
    words: Callable[[Facts], str],
) -> list[Diagnosis]:
    """Scans of which one number is far from its median over the group; who has no number is passed over."""
    measured = [(one, measure(one)) for one in group]
    measured = [(one, numbers) for one, numbers in measured if numbers]
    if len(measured) < _FEWEST:
        return []
    table = np.array([numbers for _, numbers in measured])
    far = np.stack([robust_distances(column, least_spread) for column in table.T], axis=1).max(axis=1)
    ranked = sorted((one for one, _ in measured), key=lambda one: measure(one))
    usual = words(ranked[len(ranked) // 2])
    odd = [one for (one, _), distance in zip(measured, far, strict=True) if distance > _FAR]
    if len(odd) > max(1, _RARE * len(measured)):
        reason = f"{len(odd)} of {len(measured)} {odd[0].modality} are unlike the others, such as {odd[0].path} with "
        next_step = "see whether two kinds of scans are mixed, and whether that is what you want"
        return of_whole_set([warning("outlier", f"{reason}{words(odd[0])}; usual is {usual}", next_step)])
    reasons = [(one, f"has {words(one)}; a usual {one.modality} here has {usual}") for one in odd]
    return [warning("outlier", reason, _LOOK).about(one.id, one.path) for one, reason in reasons]


def _voxel(one: Facts) -> tuple[float, ...]:
    return tuple(math.log(size) for size in one.spacing) if one.spacing is not None else ()


def _lengths(one: Facts) -> tuple[float, ...]:
    return tuple(math.log(length) for length in one.grid_shape)


def _unit_mean(one: Facts) -> tuple[float, ...]:
    return (one.values.mean,)


def _mean(one: Facts) -> tuple[float, ...]:
    return (one.values.mean,)


def _top(one: Facts) -> tuple[float, ...]:
    return (one.values.percentiles[2],)


def _log_top(one: Facts) -> tuple[float, ...]:
    return (math.log(max(1e-6, one.values.percentiles[2] - one.values.percentiles[0])),)


def _says_top(one: Facts) -> str:
    return f"values up to {one.values.percentiles[2]:.4g} (99th percentile)"


def _mm(one: Facts) -> str:
    return " x ".join(f"{size:.3g}" for size in one.spacing or ()) + " mm"


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(str(length) for length in shape)
