from __future__ import annotations

from collections import Counter

import pytest

from vissl_jointssl.preparation.splitting import hash_patient, split_of

PATIENTS = [hash_patient(f"patient {number}") for number in range(4000)]


def test_shares_are_met_on_average():
    counts = Counter(split_of(patient, 0.1, 0.2) for patient in PATIENTS)
    assert counts["val"] / 4000 == pytest.approx(0.1, abs=0.02)
    assert counts["test"] / 4000 == pytest.approx(0.2, abs=0.02)


def test_a_larger_validation_share_leaves_the_test_set_as_it_was():
    before = {patient for patient in PATIENTS if split_of(patient, 0.1, 0.2) == "test"}
    assert before == {patient for patient in PATIENTS if split_of(patient, 0.3, 0.2) == "test"}


def test_another_seed_is_another_split():
    assert {split_of(patient, 0, 0.5, 0) == split_of(patient, 0, 0.5, 1) for patient in PATIENTS} == {True, False}


def test_without_shares_all_train():
    assert {split_of(patient, 0, 0) for patient in PATIENTS} == {"train"}


@pytest.mark.parametrize("shares", [(-0.1, 0.2), (0.5, 0.5), (float("nan"), 0.1)])
def test_shares_that_leave_nothing_to_train_on_are_refused(shares):
    with pytest.raises(ValueError, match="expected two numbers from 0 whose sum is below 1"):
        split_of(PATIENTS[0], *shares)


def test_a_hashed_patient_is_twelve_hex_digits_and_takes_any_name():
    assert len(hash_patient("Jané \udcff\n")) == 12
    int(hash_patient("x"), 16)
    assert hash_patient("a") != hash_patient("b")
