from __future__ import annotations

import statistics
from dataclasses import replace

import numpy as np
import pytest

from vissl_jointssl.preparation.doctor.outliers import outlier_diagnoses, robust_distances
from vissl_jointssl.preparation.doctor.values import values_of


def a_set(make_facts, make_mr, count: int = 12) -> list:
    return [make_facts(f"scan{seed}", make_mr(seed=seed).transpose(2, 1, 0)) for seed in range(count)]


def test_distances_are_those_from_the_median_in_deviations_of_the_median():
    numbers = [1.0, 2.0, 4.0, 7.0, 50.0]
    middle = statistics.median(numbers)
    spread = 1.4826 * statistics.median(abs(number - middle) for number in numbers)
    expected = [abs(number - middle) / spread for number in numbers]
    assert robust_distances(np.array(numbers), 0.1) == pytest.approx(expected)


def test_a_set_of_equals_uses_the_least_spread():
    assert robust_distances(np.array([1.0, 1.0, 1.0, 2.0]), 0.5).tolist() == [0, 0, 0, 2]


def test_a_set_of_like_scans_has_no_outlier(make_facts, make_mr):
    assert outlier_diagnoses(a_set(make_facts, make_mr), prepared=False) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda one: replace(one, spacing=(3.0, 4.0, 4.0)),
            "voxels of 3 x 4 x 4 mm; a usual MR here has voxels of 3 x 1",
        ),
        (
            lambda one: replace(one, shape=(12, 20, 200)),
            "a shape of 12 x 20 x 200; a usual MR here has a shape of 12 x",
        ),
        (
            lambda one: replace(one, values=values_of(np.arange(90000))),
            "values up to 8.91e+04 (99th percentile); a usual",
        ),
    ],
)
def test_the_odd_one_out_is_named_with_what_is_usual(make_facts, make_mr, change, words):
    facts = a_set(make_facts, make_mr)
    facts[5] = change(facts[5])
    (found,) = outlier_diagnoses(facts, prepared=False)
    assert (found.id, found.code, found.severity) == ("scan5", "outlier", "warning")
    assert words in found.reason


def test_nine_scans_are_too_few_to_tell(make_facts, make_mr):
    facts = a_set(make_facts, make_mr, 9)
    facts[5] = replace(facts[5], spacing=(3.0, 9.0, 9.0))
    assert outlier_diagnoses(facts, prepared=False) == []


def test_modalities_are_not_compared_with_one_another(make_facts, make_mr):
    facts = a_set(make_facts, make_mr)
    facts += [replace(one, id=f"{one.id}-ct", modality="CT", spacing=(9.0, 9.0, 9.0)) for one in facts[:3]]
    assert outlier_diagnoses(facts, prepared=False) == []


def test_a_ct_in_other_units_than_the_rest_stands_out(make_facts, make_ct):
    facts = [replace(make_facts(f"scan{seed}", make_ct(seed=seed)), modality="CT") for seed in range(12)]
    facts[3] = replace(facts[3], values=values_of(make_ct() + 1024))
    (found,) = outlier_diagnoses(facts, prepared=False)
    assert found.id == "scan3"
    assert "HU" in found.reason


def test_a_prepared_volume_much_brighter_than_the_rest_stands_out(make_facts):
    rng = np.random.default_rng(0)
    facts = [make_facts(f"scan{number}", rng.uniform(0, 0.3, (9, 9, 9))) for number in range(12)]
    facts[7] = make_facts("scan7", rng.uniform(0.9, 1, (9, 9, 9)))
    (found,) = outlier_diagnoses(facts, prepared=True)
    assert found.id == "scan7"
    assert "a mean of 0.95 of [0, 1]" in found.reason


def test_a_second_kind_of_scans_is_said_once_for_the_set(make_facts, make_mr):
    facts = a_set(make_facts, make_mr, 20)
    facts[3:7] = [replace(one, spacing=(3.0, 9.0, 9.0)) for one in facts[3:7]]
    (found,) = outlier_diagnoses(facts, prepared=False)
    assert (found.id, found.path) == ("", "")
    assert found.reason.startswith("4 of 20 MR are unlike the others, such as scan3.nii with voxels of 3 x 9 x 9 mm")
