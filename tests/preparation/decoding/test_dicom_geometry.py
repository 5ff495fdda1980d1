from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from vissl_jointssl.preparation.decoding.dicom_geometry import affine_of, examine, in_order
from vissl_jointssl.preparation.decoding.dicom_header import SliceHeader


def _slices(places, **fields):
    first = SliceHeader(
        Path("a"), series="s", size=(4, 5), axes=(1, 0, 0, 0, 1, 0), spacing=(0.5, 0.75), position=(0, 0, 0)
    )
    return [replace(first, position=(0.0, 0.0, float(place)), **fields) for place in places]


def test_an_even_series_has_no_fault_in_whatever_order_its_files_come():
    places = np.random.default_rng(0).permutation(40) * 1.25 + 0.01
    headers = _slices(np.round(places, 2))
    assert examine(headers) == []
    assert [header.position[2] for header in in_order(headers)] == sorted(np.round(places, 2))


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        ([0, 2, 4, 10, 12], [("missing_slices", "2 slices are missing: 2 between 4.0 and 10.0 mm")]),
        ([0, 2, 6, 8, 12], [("missing_slices", "2 slices are missing: 1 between 2.0 and 6.0 mm, 1 between 8.0")]),
        ([0, 2, 2, 4, 6], [("duplicate_slices", "1 slices lie where another one does, at 2.0 mm")]),
        ([0, 2, 4, 6, 8, 9.1], [("geometry", "1 of 5 steps are uneven (slice distances run from 1.10 to 2.00 mm)")]),
        ([0, 0, 0, 3, 3, 3, 6, 6, 6], [("duplicate_slices", "each of 3 places holds 3 slices, as in a series over")]),
        ([5, 5, 5], [("duplicate_slices", "all 3 slices lie at one place")]),
        ([0, 4], []),
        ([0, 2, 6], [("missing_slices", "1 slices are missing: 1 between 2.0 and 6.0 mm")]),
        ([0, 1.99, 4.01, 6.0, 8.02], []),
    ],
)
def test_gaps_doubles_and_uneven_steps_are_told_apart_with_their_places(places, expected):
    faults = examine(_slices(places))
    assert [code for code, _ in faults] == [code for code, _ in expected]
    for (_, words), (_, start) in zip(faults, expected, strict=True):
        assert words.startswith(start)


def test_every_removed_slice_of_a_long_series_is_counted():
    rng = np.random.default_rng(1)
    for _ in range(20):
        removed = set(rng.choice(np.arange(1, 59), 6, replace=False).tolist())
        kept = [k for k in range(60) if k not in removed]
        faults = dict(examine(_slices([0.7 * k - 20 for k in kept])))
        assert faults["missing_slices"].startswith(f"{len(removed)} slices are missing")


def test_strangers_are_counted_and_left_aside():
    series = _slices(range(0, 20, 2))
    strangers = {
        "1 of 11 slices is part of a localizer": replace(series[0], localizer=True),
        "1 of 11 slices is of another size": replace(series[0], size=(8, 8)),
        "1 of 11 slices is of another orientation": replace(series[0], axes=(0, 1, 0, 0, 0, -1)),
        "1 of 11 slices is of another pixel size": replace(series[0], spacing=(2.0, 2.0)),
    }
    for words, stranger in strangers.items():
        assert examine([*series, stranger]) == [("mixed_series", words)]
    three_planes = [
        replace(series[0], axes=axes) for axes in [(1, 0, 0, 0, 1, 0), (0, 1, 0, 0, 0, -1), (1, 0, 0, 0, 0, -1)]
    ]
    assert examine(three_planes) == [("mixed_series", "its 3 slices have 3 orientations")]
    assert examine([*series, replace(series[0], position=(0.0, 0.0, 20.0), series="t")])[0] == (
        "mixed_series",
        "its slices belong to 2 series",
    )


def test_rounding_of_directions_is_no_other_orientation():
    series = [
        replace(header, axes=(1 - 1e-5 * k, 1e-4 * k, 0, 0, 1, 0)) for k, header in enumerate(_slices(range(0, 20, 2)))
    ]
    assert examine(series) == []


@pytest.mark.parametrize(
    "fields",
    [
        {"position": None},
        {"axes": None},
        {"spacing": (0.0, 1.0)},
        {"axes": (1, 0, 0, 1, 0, 0)},
        {"axes": (2, 0, 0, 0, 1, 0)},
    ],
)
def test_slices_without_usable_geometry_are_counted(fields):
    headers = [replace(header, **fields) for header in _slices([0, 2, 4])]
    assert examine(headers) == [("geometry", "3 of 3 slices are without usable position, orientation or pixel size")]


def test_tilt_is_measured_from_positions_and_the_header_alone_is_said_to_be_alone():
    tilted = [
        replace(header, position=(0.0, header.position[2] * 0.2, header.position[2])) for header in _slices([0, 5, 10])
    ]
    assert examine(tilted) == [("gantry_tilt", "the gantry was tilted by 11.3 degrees, slices are sheared")]
    assert examine(_slices([0, 5, 10], tilt=-8.0)) == [
        ("gantry_tilt", "the header says that the gantry was tilted by 8.0 degrees, positions do not")
    ]
    aside = [*_slices([0, 5]), replace(_slices([10])[0], position=(9.0, 0.0, 10.0)), *_slices([15, 20])]
    assert ("geometry", "slices lie up to 9.0 mm out of line") in examine(aside)


def test_the_affine_takes_real_distances_and_turns_to_ras():
    affine = affine_of(_slices([3, 5, 7]))
    np.testing.assert_allclose(affine @ (1, 0, 0, 1), (-0.75, 0, 3, 1))  # along a row to the left: RAS -x
    np.testing.assert_allclose(affine @ (0, 1, 0, 1), (0, -0.5, 3, 1))
    np.testing.assert_allclose(affine @ (0, 0, 2, 1), (0, 0, 7, 1))
