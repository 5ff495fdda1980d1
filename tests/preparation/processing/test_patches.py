from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vissl_jointssl.preparation.errors import ReadError
from vissl_jointssl.preparation.processing.patches import cut_patch, patch_starts
from vissl_jointssl.preparation.recipe import Patch


def test_a_cut_equals_a_loop_that_asks_for_every_voxel():
    rng = np.random.default_rng(0)
    array = rng.integers(1, 200, (2, 5, 6, 7))
    for start in [(0, 0, 0), (-2, 3, 5), (3, -9, 1), (9, 0, 0), (1, 2, -3)]:
        size = (3, 4, 6)
        wanted = np.zeros((2, *size), array.dtype)
        for index in np.ndindex(*size):
            place = tuple(one + first for one, first in zip(index, start, strict=True))
            if all(0 <= one < length for one, length in zip(place, array.shape[1:], strict=True)):
                wanted[:, *index] = array[:, *place]
        np.testing.assert_array_equal(cut_patch(array, start, size), wanted)


def test_the_voxel_that_holds_the_centre_is_in_the_middle_of_its_patch():
    affine = np.array([[0, 0, -0.7, 50], [0, -0.7, 0, 80], [2.5, 0, 0, -300], [0, 0, 0, 1.0]])
    volume = np.zeros((9, 10, 11), np.uint8)
    volume[4, 6, 3] = 9
    for offset in (-0.3, 0.0, 0.3):  # anywhere in the voxel
        centre = tuple((affine @ [4 + offset, 6 - offset, 3 + offset, 1])[:3])
        (start,) = patch_starts([Patch(centre)], affine, volume.shape, (4, 6, 5), Path("a.nii"))
        patch = cut_patch(volume, start, (4, 6, 5))
        assert patch[2, 3, 2] == 9


def test_every_patch_outside_the_scan_is_named():
    patches = [Patch((1.0, 1.0, 1.0)), Patch((-5.0, 1.0, 1.0)), Patch((1.0, 1.0, 4.6))]
    with pytest.raises(ReadError, match=r"2 of its 3 patches have their centre outside the scan: 1 at \(-5.0") as error:
        patch_starts(patches, np.eye(4), (4, 4, 4), (2, 2, 2), Path("a.nii"))
    assert "2 at (1.0, 1.0, 4.6)" in str(error.value)
    assert error.value.code == "geometry"
    assert patch_starts([Patch((3.4, -0.4, 0.0))], np.eye(4), (4, 4, 4), (2, 2, 2), Path("a")) == [(2, -1, -1)]
