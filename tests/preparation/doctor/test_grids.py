from __future__ import annotations

import pytest

from vissl_jointssl.preparation.doctor.grids import size_faults, spacing_faults

SHAPE = (40, 200, 200)


@pytest.mark.parametrize(
    ("spacing", "modality"),
    [
        ((5.0, 0.7, 0.7), "CT"),
        ((0.2, 0.12, 0.12), "CT"),  # photon counting
        ((10.0, 0.98, 0.98), "CT"),
        ((1.0, 1.0, 1.0), "MR"),
        ((12.0, 0.35, 0.35), "MR"),
        ((3.27, 5.47, 5.47), "PT"),
        (None, "OT"),
    ],
)
def test_what_scanners_make_is_sound(spacing, modality):
    assert spacing_faults(spacing, SHAPE, modality) == []


@pytest.mark.parametrize("spacing", [(0.005, 0.001, 0.001), (1000.0, 700.0, 700.0), (1.0, 1.0, 1e-6), (1.0, 1.0, 60.0)])
def test_a_header_in_metres_or_micrometres_is_an_error(spacing):
    (fault,) = spacing_faults(spacing, SHAPE, "CT")
    assert (fault.code, fault.severity) == ("spacing", "error")


@pytest.mark.parametrize(
    ("spacing", "shape", "words"),
    [
        ((15.0, 0.7, 0.7), SHAPE, "CT has 0.1 to 10 mm"),
        ((0.06, 0.06, 0.06), SHAPE, "CT has 0.1 to 10 mm"),
        ((9.0, 0.15, 0.15), SHAPE, "60 times as long as wide"),
        ((5.0, 1.0, 1.0), (800, 100, 100), "4.0 m long"),
    ],
)
def test_what_is_only_strange_is_a_warning(spacing, shape, words):
    (fault,) = spacing_faults(spacing, shape, "CT")
    assert (fault.code, fault.severity) == ("spacing", "warning")
    assert words in fault.reason


def test_seven_slices_are_few_and_eight_are_enough():
    assert size_faults((8, 64, 64), "volume") == []
    (fault,) = size_faults((7, 64, 64), "volume")
    assert (fault.code, fault.severity, fault.reason) == ("dimensions", "warning", "has 7 slices of 64 x 64")


def test_a_thumbnail_is_found():
    assert size_faults((16, 200), "image") == []
    (fault,) = size_faults((12, 200), "image")
    assert fault.reason == "has 12 x 200 pixels"
