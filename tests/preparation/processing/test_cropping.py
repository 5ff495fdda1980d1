from __future__ import annotations

import numpy as np
import pytest

from vissl_jointssl.preparation.processing.cropping import body_box, cropped_affine


def ball(shape: tuple[int, int, int], centre: tuple[int, int, int], radius: float) -> np.ndarray:
    axes = np.ogrid[tuple(slice(0, length) for length in shape)]
    return sum((axis - middle) ** 2 for axis, middle in zip(axes, centre, strict=True)) <= radius**2


def ends(box: tuple[slice, slice, slice]) -> list[tuple[int, int]]:
    return [(part.start, part.stop) for part in box]


def test_the_box_holds_the_body_and_little_else():
    body = ball((40, 50, 60), (20, 15, 40), 8)
    for (start, stop), axis in zip(ends(body_box(body)), range(3), strict=True):
        inside = np.flatnonzero(body.any(axis=tuple({0, 1, 2} - {axis})))
        assert inside.min() - 4 <= start < inside.min()
        assert inside.max() + 1 < stop <= inside.max() + 5


def test_specks_of_noise_do_not_widen_the_box():
    body = ball((40, 50, 60), (20, 15, 40), 8)
    noisy = body.copy()
    noisy[0, 0, 0] = noisy[39, 49, 1] = noisy[5, 40, 10] = True
    assert ends(body_box(noisy)) == ends(body_box(body))


def test_an_arm_beside_the_trunk_is_kept():
    body = ball((40, 50, 80), (20, 25, 30), 12) | ball((40, 50, 80), (20, 25, 70), 4)
    assert ends(body_box(body))[2][1] >= 75


def test_a_label_outside_the_body_widens_the_box():
    body = ball((40, 50, 60), (20, 15, 40), 8)
    labels = np.zeros(body.shape, np.uint8)
    labels[38, 48, 2] = 7
    assert [(start <= at < stop) for (start, stop), at in zip(ends(body_box(body, labels)), (38, 48, 2), strict=True)]
    planes = np.stack([np.zeros_like(labels), labels])
    assert ends(body_box(body, planes)) == ends(body_box(body, labels))


def test_without_a_body_nothing_is_cut():
    assert ends(body_box(np.zeros((4, 5, 6), bool))) == [(0, 4), (0, 5), (0, 6)]


def test_a_thinned_out_search_keeps_every_voxel_of_the_body(monkeypatch):
    every_fourth_or_so = 2**11
    monkeypatch.setattr("vissl_jointssl.preparation.processing.cropping._MOST_VOXELS", every_fourth_or_so)
    body = ball((40, 50, 60), (20, 15, 40), 8)
    whole = np.zeros_like(body)
    whole[body_box(body)] = True
    assert (whole | ~body).all()
    assert whole.mean() < 0.5


def test_a_landmark_keeps_its_place_in_the_room():
    rng = np.random.default_rng(0)
    affine = np.vstack([rng.normal(size=(3, 4)), [0, 0, 0, 1]])
    box = (slice(3, 9), slice(0, 5), slice(7, 8))
    assert cropped_affine(affine, box) @ [1, 2, 0, 1] == pytest.approx(affine @ [4, 2, 7, 1])
