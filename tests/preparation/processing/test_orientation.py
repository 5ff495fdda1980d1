from __future__ import annotations

import itertools

import numpy as np
import pytest

from vissl_jointssl.preparation.processing.orientation import AS_AXIAL_SLICES, is_usable, spacing_of, to_slices

# Where index (0, 0, 0) and the last index of (F, H, W) must lie, in signs of (right, front, head).
CORNERS = {
    "axial": ((+1, +1, -1), (-1, -1, +1)),
    "coronal": ((+1, -1, +1), (-1, +1, -1)),
    "sagittal": ((-1, +1, +1), (+1, -1, -1)),
}
VECTORS = {"axial": (2, 1, 0), "coronal": (1, 2, 0), "sagittal": (0, 2, 1)}


def every_orientation() -> list[np.ndarray]:
    """Affines of all 48 ways to store a volume whose voxels are 2 x 3 x 4 mm along right, front and head."""
    affines = []
    for order in itertools.permutations(range(3)):
        for signs in itertools.product((1, -1), repeat=3):
            affine = np.eye(4)
            affine[:3, :3] = 0
            for column, (axis, sign) in enumerate(zip(order, signs, strict=True)):
                affine[axis, column] = sign * (2, 3, 4)[axis]
            affines.append(affine)
    return affines


@pytest.mark.parametrize("slice_axis", CORNERS)
def test_every_stored_orientation_gives_the_same_slices(slice_axis):
    rng = np.random.default_rng(0)
    results = []
    body = rng.random((5, 6, 7))  # indexed (right, front, head)
    for affine in every_orientation():
        axes = np.abs(affine[:3, :3]).argmax(axis=0)
        signs = np.sign(affine[:3, :3].sum(axis=0))
        stored = body.transpose(axes)
        stored = stored[tuple(slice(None, None, int(sign)) for sign in signs)]
        slices, turned = to_slices(stored, affine, slice_axis)
        results.append(slices)
        assert spacing_of(turned) == tuple((2.0, 3.0, 4.0)[axis] for axis in VECTORS[slice_axis])
    for slices in results[1:]:
        np.testing.assert_array_equal(slices, results[0])


@pytest.mark.parametrize("slice_axis", CORNERS)
def test_slices_are_seen_as_radiologists_see_them(slice_axis):
    first, last = CORNERS[slice_axis]
    for affine in every_orientation():
        slices, turned = to_slices(np.zeros((5, 5, 5)), affine, slice_axis)
        middle = turned @ [2, 2, 2, 1]
        for index, signs in (((0, 0, 0), first), (np.array(slices.shape) - 1, last)):
            np.testing.assert_array_equal(np.sign((turned @ [*index, 1] - middle)[:3]), signs)


def test_the_affine_follows_each_voxel():
    affine = every_orientation()[29]
    affine[:3, 3] = (10, -20, 30)
    stored = np.arange(2 * 3 * 4).reshape(2, 3, 4)
    slices, turned = to_slices(stored, affine, "coronal")
    for index in np.ndindex(stored.shape):
        place = affine @ [*index, 1]
        f, h, w = np.rint(np.linalg.solve(turned, place)[:3]).astype(int)
        assert slices[f, h, w] == stored[index]


def test_an_unknown_slice_axis_is_refused():
    with pytest.raises(ValueError, match="slice axis is 'axal', expected one of axial, coronal, sagittal"):
        to_slices(np.zeros((2, 2, 2)), np.eye(4), "axal")


@pytest.mark.parametrize("slice_axis", CORNERS)
def test_channels_are_turned_as_each_alone_would_be(slice_axis):
    channels = np.random.default_rng(0).random((2, 3, 4, 5))
    for affine in every_orientation():
        slices, turned = to_slices(channels, affine, slice_axis)
        for number in range(5):
            alone, affine_alone = to_slices(channels[..., number], affine, slice_axis)
            np.testing.assert_array_equal(slices[number], alone)
            np.testing.assert_array_equal(turned, affine_alone)


def test_an_oblique_scan_is_turned_to_the_nearest_right_angle():
    angle = np.radians(30)
    oblique = np.eye(4)
    oblique[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    array = np.arange(24).reshape(2, 3, 4)
    slices, turned = to_slices(array, oblique, "axial")
    np.testing.assert_array_equal(slices, to_slices(array, np.eye(4), "axial")[0])
    np.testing.assert_allclose(turned @ [0, 0, 0, 1], oblique @ [1, 2, 0, 1])


def test_axial_slices_stay_as_they_are():
    array = np.arange(24).reshape(2, 3, 4)
    slices, turned = to_slices(array, AS_AXIAL_SLICES, "axial")
    np.testing.assert_array_equal(slices, array)
    np.testing.assert_array_equal(turned, AS_AXIAL_SLICES)


def test_affines_without_size_place_or_volume_are_not_usable():
    sheared = np.eye(4)
    sheared[1, 2] = np.tan(np.radians(40))
    assert is_usable(sheared)
    assert is_usable(np.diag([1e-3, -4, 500, 1]))
    singular, flat, lost, vast = (np.eye(4) for _ in range(4))
    singular[:3, 1] = singular[:3, 0] * 2
    flat[2, 2] = 0
    lost[0, 3] = np.nan
    vast[0, 0] = 1e300
    for affine in (singular, flat, lost, vast):
        assert not is_usable(affine)
