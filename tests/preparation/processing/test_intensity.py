from __future__ import annotations

import numpy as np
import pytest

from vissl_jointssl.preparation.processing.intensity import foreground, guess_modality, percentile_window, window


def test_the_window_is_linear_inside_and_flat_outside():
    stored = window(np.array([-3000, -1000, 0, 250, 1000, 3000]), -1000, 1000)
    assert stored.dtype == np.uint16
    np.testing.assert_array_equal(stored, [0, 0, 32768, round(0.625 * 65535), 65535, 65535])


def test_sixteen_bits_tell_a_tenth_of_a_hounsfield_unit_apart():
    assert len(np.unique(window(np.arange(-1000, 1000, 0.1), -1000, 1000))) == 20000


def test_an_empty_window_is_refused():
    with pytest.raises(ValueError, match=r"the intensity window \(5, 5\) is empty"):
        window(np.zeros(3), 5, 5)


def test_the_percentile_window_looks_at_the_body_only():
    rng = np.random.default_rng(0)
    air = rng.rayleigh(5, 90_000)
    body = rng.uniform(300, 700, 10_000)
    low, high = percentile_window(np.concatenate([air, body]), "MR")
    assert low == pytest.approx(302, abs=3)
    assert high == pytest.approx(698, abs=3)


def test_one_hot_voxel_does_not_darken_the_rest():
    array = np.concatenate([np.zeros(1000), np.linspace(100, 200, 1000), [1e6]])
    assert percentile_window(array, "MR")[1] < 210


def test_a_scan_of_two_values_still_gets_a_window():
    array = np.zeros(1000)
    array[:500] = 3
    assert percentile_window(array, "MR") == (0, 3)


def test_foreground_of_ct_is_what_is_not_air():
    np.testing.assert_array_equal(foreground(np.array([-1024, -950, -800, 40]), "CT"), [False, False, True, True])


def test_modality_is_told_from_values():
    assert guess_modality(np.array([-1000] * 10 + [40] * 90)) == "CT"
    assert guess_modality(np.array([-40] * 10 + [400] * 90)) == "MR"


def test_eight_bits_hold_the_same_window_in_coarser_steps():
    values = np.linspace(-1200, 1200, 500)
    fine, coarse = window(values, -1000, 1000) / 65535, window(values, -1000, 1000, "uint8")
    assert coarse.dtype == np.uint8
    np.testing.assert_allclose(coarse / 255, fine, atol=0.5 / 255 + 1e-5)
