from __future__ import annotations

import numpy as np

from vissl_jointssl.preparation.doctor.duplicates import duplicate_diagnoses
from vissl_jointssl.preparation.doctor.values import values_of


def test_different_voxels_are_no_duplicates(make_facts):
    assert duplicate_diagnoses([make_facts("a"), make_facts("b")]) == []


def test_a_copy_in_training_of_a_test_scan_is_an_error_and_the_test_scan_stays(make_facts):
    facts = [
        make_facts("a", digest="same", split="train"),
        make_facts("b", digest="same", split="test"),
        make_facts("c", digest="same", split="val"),
    ]
    found = duplicate_diagnoses(facts)
    assert [(one.id, one.severity) for one in found] == [("c", "error"), ("a", "error")]
    assert all("b.nii in test: a leak" in one.reason for one in found)


def test_a_copy_in_the_same_split_is_a_warning_that_says_whether_patients_differ(make_facts):
    same = [make_facts(name, digest="same", split="train", patient="one") for name in "ab"]
    (found,) = duplicate_diagnoses(same)
    assert (found.id, found.severity, found.reason) == ("b", "warning", "has the same voxels as a.nii")
    (found,) = duplicate_diagnoses([make_facts(name, digest="same", split="train") for name in "ab"])
    assert "counts as another patient" in found.reason


def test_raw_copies_of_two_patients_may_end_in_two_splits(make_facts):
    (found,) = duplicate_diagnoses([make_facts(name, digest="same") for name in "ab"])
    assert (found.severity, found.next_step) == ("warning", "keep one of the two, or they may end in two splits")


def test_constant_scans_are_not_called_copies_of_one_another(make_facts):
    flat = values_of(np.full((2, 2, 2), 3))
    assert duplicate_diagnoses([make_facts(name, digest="same", values=flat) for name in "ab"]) == []
