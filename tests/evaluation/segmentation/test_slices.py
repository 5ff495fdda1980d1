from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
import torch

from vissl_jointssl.evaluation.segmentation.slices import Pools, Sample, slice_pools
from vissl_jointssl.evaluation.segmentation.targets import Targets
from vissl_jointssl.evaluation.task import Job
from vissl_jointssl.manifest import Entry


@pytest.fixture
def entry(add_row: Callable[..., Entry]) -> Entry:
    labels = np.zeros((6, 4, 4), dtype=np.uint8)
    labels[2, 1, 1] = 3
    labels[3, 0, 0] = 1
    labels[4, 3, 3] = 3
    return add_row("a", np.zeros((6, 4, 4), dtype=np.uint16), labels)


def pools_of(entry: Entry, target: int, background: int) -> Pools:
    samples = tuple(Sample(entry, number) for number in range(target + background))
    return Pools(samples[:target], samples[target:])


def test_slices_are_sorted_by_whether_a_target_is_on_them(entry: Entry, make_job: Callable[..., Job]) -> None:
    job = make_job([entry])
    for numbers, expected in (((3,), [2, 4]), ((1,), [3]), ((1, 3), [2, 3, 4]), ((7,), [])):
        pools = slice_pools(job.manifest, job.train, Targets(numbers))
        assert [sample.number for sample in pools.target] == expected
        assert [sample.number for sample in pools.background] == [n for n in range(6) if n not in expected]


def test_planes_are_sorted_by_the_plane_of_the_target(
    add_row: Callable[..., Entry], make_job: Callable[..., Job]
) -> None:
    planes = np.zeros((2, 5, 4, 4), dtype=np.uint8)
    planes[0, 1, 0, 0] = planes[1, 1, 0, 0] = planes[1, 4, 2, 2] = 1
    job = make_job([add_row("p", np.zeros((5, 4, 4), dtype=np.uint16), planes)])
    for numbers, expected in (((1,), [1]), ((2,), [1, 4])):
        pools = slice_pools(job.manifest, job.train, Targets(numbers, overlapping=True))
        assert [sample.number for sample in pools.target] == expected


@pytest.mark.parametrize(
    ("target", "background", "share", "expected"),
    [
        (10, 100, 0.5, (10, 10)),
        (10, 100, 0.75, (10, 30)),
        (10, 3, 0.5, (10, 10)),
        (10, 9, 0.0, (10, 0)),
        (7, 0, 0.5, (7, 0)),
    ],
)
def test_two_pools_are_drawn_in_their_shares(
    entry: Entry, target: int, background: int, share: float, expected: tuple[int, int]
) -> None:
    torch.manual_seed(0)
    drawn = [sample.number for sample in pools_of(entry, target, background).draw(share)]
    counts = Counter(drawn)
    assert sum(counts[number] for number in range(target)) == expected[0]
    assert sum(counts[number] for number in range(target, target + background)) == expected[1]
    assert all(counts[number] == 1 for number in range(target))
    if background:
        times = [counts[number] for number in range(target, target + background)]
        assert max(times) - min(times) <= 1  # nothing is drawn a third time before all were drawn twice


def test_an_epoch_may_have_a_fixed_number_of_samples(entry: Entry) -> None:
    torch.manual_seed(0)
    pools = pools_of(entry, 5, 50)
    drawn = [sample.number for sample in pools.draw(0.5, 64)]
    assert len(drawn) == 64
    assert sum(number < 5 for number in drawn) == 32
    assert set(Counter(number for number in drawn if number < 5).values()) == {6, 7}
    assert len(pools_of(entry, 1, 0).draw(0.5)) == 2  # BatchNorm needs two


def test_the_order_is_of_chance_and_mixes_both_pools(entry: Entry) -> None:
    pools = pools_of(entry, 40, 40)
    torch.manual_seed(0)
    first, second = (pools.draw(0.5) for _ in range(2))
    torch.manual_seed(0)
    assert pools.draw(0.5) == first != second
    assert 5 < sum(sample.number < 40 for sample in first[:40]) < 35
