"""The geometry of a series as data: what is wrong with it, in what order its slices lie, and their affine.

Distances are in mm along the normal of the slices, positions those of the patient (LPS, as in the files).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from vissl_jointssl.preparation.decoding.dicom_header import SliceHeader

Fault = tuple[str, str]

STEP_TOLERANCE = 0.1  # of the usual step; a slice left out shows as 1.0
SAME_PLACE = 0.05  # of the usual step; two slices closer than that lie at one place
SAME_DIRECTION = 0.01  # of a direction cosine, 0.6 degrees: rounding is far below, a localizer far above
TILT_FROM = 0.1  # degrees; below, the shift over a whole chest is under 1 mm
_PLACES_NAMED = 3


def examine(headers: Sequence[SliceHeader]) -> list[Fault]:
    """Every fault of a series as (code of `errors.CODES`, words); "gantry_tilt" can be lived with, the others cannot.

    What differs from the bulk of the series (a localizer, another size or orientation) is counted and left aside, so
    that missing and doubled slices of the bulk are found in the same run.
    """
    faults: list[Fault] = []
    series = len({header.series for header in headers})
    if series > 1:
        faults.append(("mixed_series", f"its slices belong to {series} series"))
    bulk = [header for header in headers if not header.localizer]
    if bulk and len(bulk) < len(headers):
        faults.append(("mixed_series", f"{_share(len(headers) - len(bulk), headers)} part of a localizer"))
    bulk = bulk or list(headers)
    for what, names_of in _KINDS:
        names = names_of(bulk)
        kept = _most_frequent(names, bulk)
        if len(kept) <= len(bulk) // 2:
            faults.append(("mixed_series", f"its {len(bulk)} slices have {len(set(names))} {what}s"))
        elif len(kept) < len(bulk):
            faults.append(("mixed_series", f"{_share(len(bulk) - len(kept), bulk)} of another {what}"))
        bulk = kept
    placed = [header for header in bulk if has_geometry(header)]
    if len(placed) < len(bulk):
        words = f"{_share(len(bulk) - len(placed), bulk)} without usable position, orientation or pixel size"
        faults.append(("geometry", words))
    return [*faults, *_stack_faults(placed)] if len(placed) > 1 else faults


def has_geometry(header: SliceHeader) -> bool:
    """Whether a slice has a place, two directions at a right angle, and a pixel size above 0."""
    if header.position is None or header.axes is None or header.spacing is None:
        return False
    row, column = np.array(header.axes[:3]), np.array(header.axes[3:])
    lengths = (np.linalg.norm(row), np.linalg.norm(column))
    square = max(abs(length - 1) for length in lengths) < SAME_DIRECTION and abs(row @ column) < SAME_DIRECTION
    return bool(square) and min(header.spacing) > 0


def in_order(headers: Sequence[SliceHeader]) -> list[SliceHeader]:
    """By place along the normal of the slices, never by file name or number."""
    return [headers[index] for index in np.argsort(_places(headers), kind="stable")]


def affine_of(headers: Sequence[SliceHeader]) -> np.ndarray:
    """Index (i along rows, j along columns, k slices) to RAS mm, 4x4, for slices in order and without faults.

    The third column runs from the first slice to the last, so that the real distance counts, not the header's slice
    thickness, and a tilted gantry shows as shear.
    """
    between_rows, between_columns = np.array(headers[0].spacing)
    axes = np.array(headers[0].axes)
    positions = _positions(headers)
    affine = np.eye(4)
    affine[:3, 0] = axes[:3] * between_columns
    affine[:3, 1] = axes[3:] * between_rows
    affine[:3, 2] = (positions[-1] - positions[0]) / (len(headers) - 1)
    affine[:3, 3] = positions[0]
    affine[:2] *= -1  # LPS to RAS
    return affine


def _stack_faults(headers: Sequence[SliceHeader]) -> list[Fault]:
    places = np.sort(_places(headers))
    steps = np.diff(places)
    apart = np.sort(steps[steps > 1e-3])
    if len(apart) == 0:
        return [("duplicate_slices", f"all {len(headers)} slices lie at one place")]
    # The lower median: of two steps the smaller is the usual one and the larger a gap. Tiny steps are doubled slices.
    usual = float(apart[(len(apart) - 1) // 2])
    apart = apart[apart > SAME_PLACE * usual]
    usual = float(apart[(len(apart) - 1) // 2])
    span = f"(slice distances run from {steps.min():.2f} to {steps.max():.2f} mm)"
    return [
        *_doubled(places, steps, usual, span),
        *_gaps(places, steps, usual, span),
        *_sideways(headers),
    ]


def _doubled(places: np.ndarray, steps: np.ndarray, usual: float, span: str) -> list[Fault]:
    same = steps <= SAME_PLACE * usual
    if not same.any():
        return []
    at_each = np.diff(np.concatenate([[0], np.flatnonzero(~same) + 1, [len(places)]]))
    if at_each.min() == at_each.max():
        words = f"each of {len(at_each)} places holds {at_each[0]} slices, as in a series over time"
        return [("duplicate_slices", words)]
    where = _listed([f"{place:.1f} mm" for place in places[:-1][same]])
    return [("duplicate_slices", f"{int(same.sum())} slices lie where another one does, at {where} {span}")]


def _gaps(places: np.ndarray, steps: np.ndarray, usual: float, span: str) -> list[Fault]:
    faults: list[Fault] = []
    ratios = steps / usual
    whole = np.rint(ratios)
    even = np.abs(ratios - whole) <= STEP_TOLERANCE
    gaps = even & (whole > 1)
    if gaps.any():
        missing = (whole[gaps] - 1).astype(int)
        ends = zip(missing, places[:-1][gaps], places[1:][gaps], strict=True)
        where = _listed([f"{count} between {low:.1f} and {high:.1f} mm" for count, low, high in ends])
        faults.append(("missing_slices", f"{missing.sum()} slices are missing: {where} {span}"))
    if not (even | (ratios <= SAME_PLACE)).all():
        uneven = int((~even & (ratios > SAME_PLACE)).sum())
        faults.append(("geometry", f"{uneven} of {len(steps)} steps are uneven {span}, most are {usual:.2f} mm"))
    return faults


def _sideways(headers: Sequence[SliceHeader]) -> list[Fault]:
    """Shear (a tilted gantry), and slices that are out of line."""
    headers = in_order(headers)
    positions, places = _positions(headers), _places(headers)
    length = places[-1] - places[0]
    line = positions[0] + (places - places[0])[:, None] / length * (positions[-1] - positions[0])
    pixel = min(headers[0].spacing or (1.0,))
    faults: list[Fault] = []
    aside = float(np.linalg.norm(positions - line, axis=1).max())
    if aside > pixel:
        faults.append(("geometry", f"slices lie up to {aside:.1f} mm out of line"))
    shift = float(np.linalg.norm(positions[-1] - positions[0] - length * _normal(headers[0])))
    degrees = math.degrees(math.atan2(shift, length))
    if degrees > TILT_FROM and shift > pixel:
        faults.append(("gantry_tilt", f"the gantry was tilted by {degrees:.1f} degrees, slices are sheared"))
    elif abs(headers[0].tilt) > TILT_FROM:
        words = f"the header says that the gantry was tilted by {abs(headers[0].tilt):.1f} degrees, positions do not"
        faults.append(("gantry_tilt", words))
    return faults


def _positions(headers: Sequence[SliceHeader]) -> np.ndarray:
    return np.array([header.position for header in headers], dtype=float)


def _normal(header: SliceHeader) -> np.ndarray:
    axes = np.array(header.axes, dtype=float)
    return np.cross(axes[:3], axes[3:])


def _places(headers: Sequence[SliceHeader]) -> np.ndarray:
    return _positions(headers) @ _normal(headers[0])


def _size_names(headers: Sequence[SliceHeader]) -> list[int]:
    """Slices of equal size get equal numbers."""
    return _numbered([(header.size, header.samples) for header in headers])


def _pixel_names(headers: Sequence[SliceHeader]) -> list[int]:
    """Slices of pixels equal in three digits get equal numbers."""
    return _numbered([None if header.spacing is None else _rounded(header.spacing) for header in headers])


def _direction_names(headers: Sequence[SliceHeader]) -> list[int]:
    """Slices of nearly equal direction get equal numbers."""
    known: list[np.ndarray] = []
    names = []
    for header in headers:
        axes = np.full(6, np.inf) if header.axes is None else np.array(header.axes)
        near = [number for number, other in enumerate(known) if np.allclose(axes, other, rtol=0, atol=SAME_DIRECTION)]
        if not near:
            known.append(axes)
        names.append(near[0] if near else len(known) - 1)
    return names


_KINDS = (("size", _size_names), ("orientation", _direction_names), ("pixel size", _pixel_names))


def _rounded(spacing: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(float(f"{size:.3g}") for size in spacing)


def _numbered(values: Sequence[object]) -> list[int]:
    known: dict[object, int] = {}
    return [known.setdefault(value, len(known)) for value in values]


def _most_frequent(names: Sequence[int], headers: Sequence[SliceHeader]) -> list[SliceHeader]:
    usual = Counter(names).most_common(1)[0][0]
    return [header for name, header in zip(names, headers, strict=True) if name == usual]


def _share(count: int, headers: Sequence[SliceHeader]) -> str:
    return f"{count} of {len(headers)} slices {'is' if count == 1 else 'are'}"


def _listed(words: Sequence[str]) -> str:
    more = f" and {len(words) - _PLACES_NAMED} more" if len(words) > _PLACES_NAMED else ""
    return ", ".join(words[:_PLACES_NAMED]) + more
