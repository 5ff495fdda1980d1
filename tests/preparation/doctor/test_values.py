from __future__ import annotations

import numpy as np
import pytest

from vissl_jointssl.preparation.doctor.values import digest_of, sample, values_of


def test_values_are_numpys_own_on_a_small_array():
    array = np.random.default_rng(0).integers(-50, 900, (7, 8, 9))
    values = values_of(array)
    assert (values.low, values.high) == (array.min(), array.max())
    assert values.percentiles == pytest.approx(np.percentile(array, (1, 50, 99, 99.9)))
    assert values.mean == pytest.approx(array.mean())
    assert values.distinct == len(set(array.ravel().tolist()))
    assert values.whole


def test_shares_count_the_commonest_and_the_largest_value():
    values = values_of(np.array([[0, 0, 0, 9], [0, 5, 9, 7]]))
    assert values.commonest == 4 / 8
    assert values.at_high == 2 / 8


def test_a_unit_makes_integers_stand_for_zero_to_one():
    values = values_of(np.array([[0, 65535], [0, 65535]], np.uint16), unit=65535)
    assert (values.low, values.high, values.mean) == (0, 1, 0.5)


def test_a_large_array_is_sampled_and_its_extremes_are_still_exact():
    array = np.zeros((300, 200, 100), np.int16)
    array[299, 199, 99] = 77
    assert sample(array).size < array.size / 2
    assert values_of(array).high == 77


def test_an_axis_of_few_slices_is_kept_whole_by_the_sample():
    array = np.zeros((2, 3000, 3000), np.uint8)
    array[1] = 1
    assert sample(array).mean() == 0.5


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.float32, np.float64, ">i2"])
def test_a_digest_does_not_depend_on_the_type_or_layout_in_memory(dtype):
    array = np.random.default_rng(0).integers(-1024, 3071, (3, 4, 5))
    assert digest_of(array.astype(dtype)) == digest_of(array)
    assert digest_of(np.asfortranarray(array.astype(dtype))) == digest_of(array)


def test_a_digest_changes_with_a_voxel_and_with_the_shape():
    array = np.arange(60.0).reshape(3, 4, 5)
    other = array.copy()
    other[2, 3, 4] += 1
    assert len({digest_of(array), digest_of(other), digest_of(array.reshape(3, 5, 4))}) == 3


def test_minus_zero_is_zero_for_a_digest():
    assert digest_of(np.array([[0.0, 1.0]])) == digest_of(np.array([[-0.0, 1.0]]))
