"""Whether the values of a scan are those that its modality has."""

from __future__ import annotations

import numpy as np

from vissl_jointssl.preparation.doctor.diagnosis import Fault, error, warning
from vissl_jointssl.preparation.doctor.values import Values, sample

_EMPTY_SHARE = 0.99
_EMPTY_SHAPE = 0.999  # of shapes without grey values, which are often small
_FEW_VALUES = 16  # as preparation takes it
_SATURATED_SHARE = 0.5
_LEAST_STEPS = 32  # an eighth of 8 bits
_AIR = -200.0  # HU: fat ends at about -150, so only air and lung are below
_NO_METAL = 5000.0  # HU: bone ends at about 2000, scanners clip at 3071 but for metal, which fills no thousandth
_OFFSET = 1024.0  # scanners store HU + 1024 and say so in the rescale intercept
_NEGATIVE = -0.05  # of the 99th percentile; the ringing of an interpolation stays above it in 99 % of voxels

_RESCALE = "convert it again with rescale slope and intercept, so that air is -1000 and water 0"


def raw_faults(values: Values, modality: str, declared: bool, array: np.ndarray) -> list[Fault]:
    """Faults of a volume in the units of its scanner.

    Args:
        values: Of the array.
        modality: "CT", "MR", ...
        declared: Whether somebody said so, rather than the values themselves.
        array: One channel, `(F, H, W)`.
    """
    faults = common_faults(values, modality, "volume")
    if values.distinct < _FEW_VALUES:
        return faults
    if modality == "CT":
        faults += _ct_faults(values)
    elif not declared and _is_stored_ct(values, array):
        next_step = f"if it is one, {_RESCALE}; if it is not, say so with --modality"
        faults.append(warning("intensity", "looks like a CT whose values are not in HU but 1024 higher", next_step))
    elif modality == "MR" and values.percentiles[0] < _NEGATIVE * abs(values.percentiles[2]):
        reason = f"an MR with negative values (1 % are below {values.percentiles[0]:g})"
        faults.append(warning("intensity", reason, "see whether it was normalised before, or is a phase image or a CT"))
    return faults


def image_faults(values: Values, dtype: np.dtype, modality: str) -> list[Fault]:
    """Faults of a 2D image as it is decoded."""
    faults = common_faults(values, modality, "image")
    if values.distinct < _FEW_VALUES:
        return faults
    if values.high - values.low < _LEAST_STEPS:
        steps = f"{values.high - values.low + 1:.0f} steps of grey, values {values.low:g} to {values.high:g}"
        faults.append(warning("intensity", f"uses {steps}", "export it again with 16 bits or a narrower window"))
    largest = np.iinfo(dtype).max
    if values.high == largest and values.at_high > _SATURATED_SHARE:
        reason = f"{values.at_high:.0%} of its values are {largest}, the largest that fits"
        faults.append(warning("intensity", reason, "export it again with a wider window"))
    return faults


def prepared_faults(values: Values, kind: str, modality: str) -> list[Fault]:
    """Faults of an array of a prepared folder, whose values stand for [0, 1]."""
    if values.low == values.high:
        return [error("constant", f"every voxel is {values.low:g}", "leave its scan out, or prepare it again")]
    return common_faults(values, modality, kind)


def common_faults(values: Values, modality: str, kind: str) -> list[Fault]:
    """Nearly empty, or a label map: what any modality can suffer from."""
    few = values.distinct < _FEW_VALUES
    scanned = kind == "image" or modality in ("CT", "MR", "PT")
    if values.commonest > (_EMPTY_SHARE if scanned or not few else _EMPTY_SHAPE):
        reason = f"{values.commonest:.2%} of its voxels have one value"
        return [warning("nearly_empty", reason, "look at it (--preview); take it out if it shows nothing")]
    if few and scanned:
        reason = f"has {values.distinct} different values, from {values.low:g} to {values.high:g}"
        next_step = "take it out if it is a mask, or so dark that nothing is left of it"
        return [warning("few_values", reason, next_step if kind == "image" else "take it out if it is a label map")]
    return []


def _ct_faults(values: Values) -> list[Fault]:
    low, high = values.low, values.high
    reach = f"values from {low:g} to {high:g}"
    if low >= 0 and high <= 1:
        return [error("intensity", f"a CT with {reach}: rescaled to [0, 1], not in HU", _RESCALE)]
    if low >= 0 and high <= 255:
        return [error("intensity", f"a CT with {reach}: rescaled to 8 bits, not in HU", _RESCALE)]
    if low >= 0 and values.percentiles[2] > _OFFSET:
        return [error("intensity", f"a CT with {reach}: not in HU but 1024 higher", _RESCALE)]
    if low > _AIR:
        next_step = "see whether it was cut from inside the body; otherwise convert it again from its source"
        return [warning("intensity", f"a CT without air: {reach}", next_step)]
    if values.percentiles[3] > _NO_METAL:
        reason = f"a CT with a thousandth of its voxels above {values.percentiles[3]:g} HU"
        return [warning("intensity", reason, "look for a wrong rescale slope, or metal")]
    return []


def _is_stored_ct(values: Values, array: np.ndarray) -> bool:
    """Air near 0, and nearly all of the rest where water lies; an MR has no reason to do both."""
    if not (values.whole and values.low >= 0 and 1500 < values.high <= 4095):
        return False
    seen = sample(array)
    body = seen[seen > 400]
    air = float((seen < 200).mean())
    return bool(air > 0.15 and body.size > 0.1 * seen.size and ((body > 850) & (body < 1300)).mean() > 0.85)
