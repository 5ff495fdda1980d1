from __future__ import annotations

import math

import numpy as np
import pytest

from vissl_jointssl.preparation.processing.resampling import resample, resampled_affine, resampled_shape


def linear_at(line: np.ndarray, position: float) -> float:
    """Linear interpolation between voxel centres, continued by the end voxels."""
    position = min(max(position, 0), len(line) - 1)
    below = min(int(position), len(line) - 2)
    return line[below] + (position - below) * (line[below + 1] - line[below])


def test_the_extent_in_mm_is_kept():
    assert resampled_shape((20, 512, 512), (2.0, 0.9765625, 0.9765625), (3.0, 3.0, 3.0)) == (13, 167, 167)
    assert resampled_shape((2, 2, 2), (0.1, 0.1, 0.1), (9.0, 9.0, 9.0)) == (1, 1, 1)


def test_finer_grids_agree_with_linear_interpolation_by_hand():
    rng = np.random.default_rng(0)
    line = rng.random(7)
    volume = np.broadcast_to(line[:, None, None], (7, 3, 3))
    result = resample(volume, (16, 3, 3))
    for index in range(16):
        position = (index + 0.5) * 7 / 16 - 0.5
        assert result[index, 1, 1] == pytest.approx(linear_at(line, position), abs=1e-6)


def test_coarser_grids_do_not_alias():
    stripes = np.tile([0.0, 1.0], 60)[:, None, None] * np.ones((120, 2, 2))
    coarse = resample(stripes, (40, 2, 2))
    assert np.abs(coarse[2:-2] - 0.5).max() < 0.1


def test_a_constant_stays_constant_and_an_equal_shape_changes_nothing():
    np.testing.assert_allclose(resample(np.full((9, 8, 7), 3.0), (4, 12, 3)), 3, rtol=1e-6)
    array = np.random.default_rng(0).random((3, 4, 5)).astype(np.float32)
    np.testing.assert_array_equal(resample(array, (3, 4, 5)), array)


def test_labels_keep_their_numbers_and_lie_where_the_scan_lies():
    labels = np.zeros((12, 12, 12), np.uint8)
    labels[3:9, 3:9, 6:] = 200
    for shape in ((6, 6, 6), (24, 24, 24), (5, 7, 11)):
        small = resample(labels, shape, labels=True)
        assert small.dtype == np.uint8
        assert set(np.unique(small)) == {0, 200}
        wanted = [np.floor((np.arange(length) + 0.5) * 12 / length).astype(int) for length in shape]
        agreement = (small == labels[np.ix_(*wanted)]).mean()
        assert agreement > 0.97, math.prod(shape)


def test_a_landmark_keeps_its_place_in_the_room():
    affine = np.array([[0, 0, -0.7, 50], [0, -0.7, 0, 80], [2.5, 0, 0, -300], [0, 0, 0, 1.0]])
    volume = np.zeros((12, 20, 30))
    volume[5:9, 8:14, 10:20] = 1
    small = resample(volume, (30, 10, 40))
    moved = resampled_affine(affine, volume.shape, small.shape)

    def middle(array: np.ndarray, index_to_room: np.ndarray) -> np.ndarray:
        weights = array / array.sum()
        index = [
            (weights.sum(axis=tuple({0, 1, 2} - {axis})) * np.arange(array.shape[axis])).sum() for axis in range(3)
        ]
        return (index_to_room @ [*index, 1])[:3]

    np.testing.assert_allclose(middle(small, moved), middle(volume, affine), atol=0.05)
    corner = np.array([-0.5, -0.5, -0.5, 1])  # the outer corner of the first voxel: borders stay
    np.testing.assert_allclose(moved @ corner, affine @ corner)
