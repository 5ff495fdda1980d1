from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from vissl_jointssl.evaluation.fractions import nested_subset
from vissl_jointssl.manifest import read_manifest


def test_smaller_shares_are_parts_of_larger_ones_and_patients_stay_whole(make_manifest: Callable[..., Path]) -> None:
    entries = read_manifest(make_manifest(train=40, test=0)).entries
    for seed in range(5):
        sets = [{e.id for e in nested_subset(entries, share, seed)} for share in (0.05, 0.1, 0.4, 0.7, 1.0)]
        assert all(small <= large for small, large in itertools.pairwise(sets))
        assert [len(ids) for ids in sets] == [2, 4, 16, 28, 40]  # two rows a patient, 20 patients
        for ids in sets:
            assert all((f"case{n:02d}" in ids) == (f"case{n + 1:02d}" in ids) for n in range(0, 40, 2))


def test_seeds_choose_other_patients_and_new_patients_move_nobody(make_manifest: Callable[..., Path]) -> None:
    few = read_manifest(make_manifest(train=20, test=0)).entries
    many = read_manifest(make_manifest(train=40, test=0)).entries
    chosen = [{e.id for e in nested_subset(few, 0.5, seed)} for seed in range(6)]
    assert len({frozenset(ids) for ids in chosen}) > 1
    ids = {e.id for e in few}
    for seed in range(6):
        order = [e.patient for share in range(1, 21) for e in nested_subset(many, share / 20, seed) if e.id in ids]
        small = [e.patient for share in range(1, 11) for e in nested_subset(few, share / 10, seed)]
        assert list(dict.fromkeys(order)) == list(dict.fromkeys(small))


def test_the_order_of_rows_is_kept_and_at_least_one_patient_taken(make_manifest: Callable[..., Path]) -> None:
    entries = read_manifest(make_manifest(train=8, test=0)).entries
    assert nested_subset(entries, 1.0, 3) == entries
    assert len(nested_subset(entries, 0.0001, 3)) == 2
    assert len(nested_subset(tuple(reversed(entries)), 0.25, 3)) == 2
    with pytest.raises(ValueError, match="a fraction of labels is 0, expected above 0"):
        nested_subset(entries, 0, 0)
