from __future__ import annotations

import re

import numpy as np
import pytest

from vissl_jointssl.preparation.doctor.intensities import image_faults, prepared_faults, raw_faults
from vissl_jointssl.preparation.doctor.values import values_of


def faults_of(array: np.ndarray, modality: str, declared: bool = True) -> list:
    return raw_faults(values_of(array), modality, declared, array)


def test_a_ct_in_hounsfield_units_is_sound(make_ct):
    assert faults_of(make_ct(), "CT") == []


def test_a_ct_whose_corners_are_padded_is_sound(make_ct):
    array = make_ct()
    array[:1] = -3024  # what scanners write outside the round field of view
    assert faults_of(array, "CT") == []


def test_a_ct_with_a_little_metal_is_sound(make_ct):
    array = make_ct((60, 60, 30))
    array[30, 30, 10:20] = 20000
    assert faults_of(array, "CT") == []


def test_an_mr_is_sound_whatever_its_scale(make_mr):
    for scale in (0.05, 1, 40):
        assert faults_of(make_mr(scale=scale), "MR", declared=False) == []
        assert faults_of(make_mr(scale=scale), "MR") == []


@pytest.mark.parametrize(
    ("change", "severity", "words"),
    [
        (lambda hu: hu + 1024, "error", "1024 higher"),
        (lambda hu: (np.clip(hu, -1000, 1000) + 1000) / 2000, "error", r"\[0, 1\]"),
        (lambda hu: np.rint((np.clip(hu, -1000, 1000) + 1000) / 2000 * 255), "error", "8 bits"),
        (lambda hu: np.maximum(hu, -150), "warning", "without air"),
        (lambda hu: hu * 10, "warning", "above 7"),
    ],
)
def test_a_ct_in_other_units_is_found(make_ct, change, severity, words):
    (fault,) = faults_of(change(make_ct((40, 40, 20)).clip(-1000).astype(float)), "CT")
    assert (fault.code, fault.severity) == ("intensity", severity)
    assert re.search(words, fault.reason), fault.reason


def test_stored_ct_values_are_suspected_where_nobody_names_the_modality(make_ct):
    array = (make_ct((40, 40, 20)).clip(-1000) + 1024).astype(np.int16)
    (fault,) = faults_of(array, "MR", declared=False)
    assert (fault.code, fault.severity) == ("intensity", "warning")
    assert "--modality" in fault.next_step
    assert faults_of(array, "MR", declared=True) == []


def test_an_mr_that_was_normalised_before_is_found(make_mr):
    array = make_mr().astype(float)
    (fault,) = faults_of((array - array.mean()) / array.std(), "MR")
    assert (fault.code, fault.severity) == ("intensity", "warning")
    assert "negative" in fault.reason


def test_a_few_negative_voxels_of_an_interpolation_are_no_fault(make_mr):
    array = make_mr((40, 40, 20)).astype(float)
    array[:1, :1] = -3
    assert faults_of(array, "MR") == []


def test_a_scan_of_nothing_but_one_voxel_is_found(make_mr):
    array = np.zeros((20, 20, 20))
    array[3, 3, 3] = 1
    (fault,) = faults_of(array, "MR")
    assert (fault.code, fault.severity) == ("nearly_empty", "warning")


def test_a_label_map_among_the_scans_is_found():
    array = np.random.default_rng(0).integers(0, 4, (20, 20, 20))
    (fault,) = faults_of(array, "MR", declared=False)
    assert (fault.code, fault.severity) == ("few_values", "warning")
    assert "4 different values" in fault.reason


def test_shapes_without_grey_values_are_sound_where_they_do_not_claim_to_be_scans():
    array = np.random.default_rng(0).integers(0, 2, (20, 20, 20)) * 65535
    assert prepared_faults(values_of(array), "volume", "OT") == []


def test_a_grey_image_that_uses_its_range_is_sound(make_picture):
    array = make_picture()
    assert image_faults(values_of(array), array.dtype, "XR") == []


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        (lambda image: image // 8, "intensity", "steps of grey, values 0 to 29"),
        (lambda image: np.where(image > 100, 255, image), "intensity", "255, the largest"),
        (lambda image: (image > 100).astype(np.uint8) * 255, "few_values", "2 different values"),
        (lambda image: np.where(np.arange(image.size).reshape(image.shape) < 5, image, 0), "nearly_empty", "one value"),
    ],
)
def test_a_poor_image_is_found(make_picture, change, code, words):
    array = change(make_picture()).astype(np.uint8)
    (fault,) = image_faults(values_of(array), array.dtype, "XR")
    assert (fault.code, fault.severity) == (code, "warning")
    assert words in fault.reason


def test_sixteen_bits_hold_a_narrow_range_without_loss(make_picture):
    array = make_picture().astype(np.uint16) * 10
    assert image_faults(values_of(array), array.dtype, "XR") == []


def test_a_constant_array_of_a_prepared_folder_is_an_error():
    (fault,) = prepared_faults(values_of(np.full((4, 4, 4), 7)), "volume", "CT")
    assert (fault.code, fault.severity) == ("constant", "error")
