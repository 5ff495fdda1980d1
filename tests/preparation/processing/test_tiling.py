from __future__ import annotations

import itertools

import numpy as np
import pytest

from vissl_jointssl.preparation.processing.tiling import dominant_label, tile_starts, tiles


@pytest.mark.parametrize("length", [1, 15, 16, 17, 31, 32, 33, 100, 101])
@pytest.mark.parametrize(("size", "stride"), [(16, 16), (16, 8), (16, 5), (1, 1)])
def test_tiles_cover_an_axis_and_the_last_ends_with_it(length, size, stride):
    starts = tile_starts(length, size, stride)
    covered = {index for start in starts for index in range(start, min(start + size, length))}
    assert covered == set(range(length))
    assert starts[0] == 0
    assert starts[-1] == max(0, length - size)
    assert all(0 < after - before <= stride for before, after in itertools.pairwise(starts))


def test_no_more_tiles_than_needed():
    assert tile_starts(32, 16, 16) == [0, 16]
    assert tile_starts(33, 16, 16) == [0, 8, 17]


def test_a_stride_that_would_skip_voxels_is_refused():
    with pytest.raises(ValueError, match="tile size 16 and stride 17: expected 1 <= stride <= size"):
        tile_starts(40, 16, 17)
    with pytest.raises(ValueError, match="tile size 0"):
        tile_starts(40, 0, 0)


def test_every_voxel_of_a_volume_is_in_a_tile_and_short_axes_stay_short():
    volume = np.zeros((5, 20, 33), int)
    for index in tiles(volume.shape, (16, 16, 16), (8, 16, 12)):
        assert volume[index].shape == (5, 16, 16)
        volume[index] += 1
    assert volume.min() >= 1


def test_the_clear_winner_names_a_region_and_background_never_does():
    labels = np.zeros(100, int)
    labels[:20], labels[20:30] = 3, 1
    assert dominant_label(labels, 0.1, 1.5) == 3
    assert dominant_label(labels, 0.2, 2.0) == 3
    assert dominant_label(labels, 0.21, 1.5) is None
    assert dominant_label(labels, 0.1, 2.01) is None
    assert dominant_label(np.zeros(100, int), 0.0, 1.0) is None


def test_planes_that_do_not_overlap_have_the_dominant_label_of_their_map():
    rng = np.random.default_rng(0)
    for _ in range(20):
        labels = rng.integers(0, 4, (3, 4, 5)) * rng.integers(0, 2, (3, 4, 5))
        planes = np.stack([labels == number for number in (1, 2, 3)]).astype(np.uint8)
        assert dominant_label(planes, 0.2, 1.2) == dominant_label(labels, 0.2, 1.2)
