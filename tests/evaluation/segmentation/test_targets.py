from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from vissl_jointssl.evaluation.segmentation.targets import TargetError, Targets, find_targets, numbers_by_slice
from vissl_jointssl.evaluation.task import Job
from vissl_jointssl.manifest import Entry

Row = Callable[..., Entry]


@pytest.fixture
def map_row(add_row: Row) -> Row:
    """A volume `(3, 4, 4)` with one voxel of each of the given labels."""

    def make(name: str, *numbers: int, split: str = "train", dtype: type = np.uint8) -> Entry:
        labels = np.zeros((3, 4, 4), dtype=dtype)
        labels[1].flat[: len(numbers)] = numbers
        return add_row(name, np.zeros((3, 4, 4), dtype=np.uint16), labels, split)

    return make


@pytest.fixture
def plane_row(add_row: Row) -> Row:
    def make(name: str, count: int, split: str = "train") -> Entry:
        return add_row(name, np.zeros((4, 4), dtype=np.uint8), np.ones((count, 4, 4), dtype=np.uint8), split)

    return make


def test_labels_of_a_map_exclude_each_other_and_planes_do_not() -> None:
    labels = np.array([[0, 1], [2, 300]], dtype=np.uint16)
    assert Targets((2, 300)).masks(labels).tolist() == [
        [[False, False], [True, False]],
        [[False, False], [False, True]],
    ]
    planes = np.array([[[1, 0]], [[1, 1]], [[0, 1]]], dtype=np.uint8)
    assert Targets((3, 1), overlapping=True).masks(planes).tolist() == [[[False, True]], [[True, False]]]
    assert Targets((1,), instances=True).masks(labels).tolist() == [[[False, True], [True, True]]]
    assert Targets((1,), overlapping=True, instances=True).masks(planes).tolist() == [[[True, True]]]


def test_a_voxel_of_a_map_goes_to_the_most_probable_label_and_of_planes_to_all() -> None:
    probabilities = torch.tensor([[0.9, 0.8, 0.4, 0.2, 0.6], [0.7, 0.95, 0.45, 0.7, 0.6]]).reshape(1, 2, 1, 5)
    exclusive = Targets((1, 2)).decide(probabilities)[0, :, 0].tolist()
    assert exclusive == [[True, False, False, False, True], [False, True, False, True, False]]
    overlapping = Targets((1, 2), overlapping=True).decide(probabilities)[0, :, 0].tolist()
    assert overlapping == [[True, True, False, False, True], [True, True, False, True, True]]
    assert Targets((4,)).decide(probabilities[:, :1])[0, 0, 0].tolist() == [True, True, False, False, True]


def test_labels_are_found_where_none_are_named(map_row: Row, plane_row: Row, make_job: Callable[..., Job]) -> None:
    rows = [map_row("a", 5, 2), map_row("b", 9), map_row("c", 2, split="test", dtype=np.int64)]
    job = make_job(rows)
    assert find_targets(job, job.manifest.entries, None) == Targets((2, 5, 9))
    assert find_targets(job, job.manifest.entries, (9,)) == Targets((9,))
    assert [set(found) for found in numbers_by_slice(job.manifest, job.manifest.entries[0])] == [set(), {2, 5}, set()]
    job = make_job([plane_row("p", 3), plane_row("q", 3, "test")])
    assert find_targets(job, job.manifest.entries, None) == Targets((1, 2, 3), overlapping=True)


def test_labels_that_cannot_be_learned_are_named(map_row: Row, plane_row: Row, make_job: Callable[..., Job]) -> None:
    job = make_job([map_row("a", 1, 2), map_row("b", 7, split="test")])
    with pytest.raises(TargetError, match=r"none of 1 training rows holds label 7 \(they hold 1, 2\); name others in"):
        find_targets(job, job.manifest.entries, None)
    with pytest.raises(TargetError, match=r"holds label 4, 6 \(they hold 1, 2\)"):
        find_targets(job, job.manifest.entries, (1, 4, 6))
    job = make_job([map_row("a"), map_row("b", split="test")])
    with pytest.raises(TargetError, match=r"2 rows have label maps, and all of them are empty"):
        find_targets(job, job.manifest.entries, None)
    with pytest.raises(TargetError, match=r"none of 1 training rows holds label 1 \(they hold none\)"):
        find_targets(job, job.manifest.entries, None, instances=True)
    job = make_job([map_row("a", 1), plane_row("p", 2)])
    with pytest.raises(TargetError, match=r"1 of 2 rows, such as 'p', have a plane for each label, and the others one"):
        find_targets(job, job.manifest.entries, None)
    job = make_job([plane_row("p", 3), plane_row("q", 2)])
    with pytest.raises(TargetError, match=r"row 'q' has 2 planes, and label 3 is a target \(1 such rows\)"):
        find_targets(job, job.manifest.entries, None)
    assert find_targets(job, job.manifest.entries, (2, 1)) == Targets((2, 1), overlapping=True)


def test_numbers_of_objects_are_one_target(map_row: Row, make_job: Callable[..., Job]) -> None:
    job = make_job([map_row("a", 17, 300, dtype=np.uint16), map_row("b", 5, split="test")])
    assert find_targets(job, job.manifest.entries, None, instances=True) == Targets((1,), instances=True)
