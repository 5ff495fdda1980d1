from __future__ import annotations

import itertools

import pytest
import torch

from vissl_jointssl.views import SampleKey, sample_generator, view_generator


def first_numbers(generator: torch.Generator, count: int = 1) -> tuple[float, ...]:
    return tuple(torch.rand(count, generator=generator, dtype=torch.float64).tolist())


def test_the_same_four_numbers_give_the_same_stream():
    torch.manual_seed(1)
    first = first_numbers(view_generator(SampleKey(3, 5, 7), 1), 4)
    torch.manual_seed(2)
    assert first_numbers(view_generator(SampleKey(3, 5, 7), 1), 4) == first


def test_no_two_small_keys_share_a_stream_in_whatever_order_their_numbers_are():
    keys = itertools.product(range(4), range(4), range(4))
    streams = []
    for key in keys:
        streams += [first_numbers(view_generator(SampleKey(*key), view), 2) for view in range(4)]
        streams.append(first_numbers(sample_generator(SampleKey(*key)), 2))
    assert len(set(streams)) == len(streams) == 4**3 * 5


def test_large_numbers_do_not_run_into_one_another():
    # As 32-bit words these would be the same lists if the numbers were not padded to one length.
    keys = [SampleKey(2**32, 1, 1), SampleKey(0, 2**32 + 1, 1), SampleKey(0, 1, 1), SampleKey(2**40, 0, 0)]
    assert len({first_numbers(view_generator(key, 0)) for key in keys}) == 4


@pytest.mark.parametrize("varied", range(4))
def test_streams_of_neighbouring_keys_are_uncorrelated_and_even(varied):
    values = []
    for number in range(2000):
        numbers = [0, 0, 0, 0]
        numbers[varied] = number
        values.append(first_numbers(view_generator(SampleKey(*numbers[:3]), numbers[3]))[0])
    tensor = torch.tensor(values, dtype=torch.float64)
    neighbours = torch.corrcoef(torch.stack([tensor[:-1], tensor[1:]]))[0, 1]
    assert abs(float(neighbours)) < 4 / 2000**0.5
    counts = torch.histc(tensor, bins=10, min=0, max=1)
    assert float(((counts - 200) ** 2 / 200).sum()) < 28  # chi-squared, 9 degrees of freedom, p = 0.001


def test_negative_numbers_are_refused():
    with pytest.raises(ValueError, match=r"epoch=-1.*; expected a seed, an epoch and a sample that count from 0"):
        view_generator(SampleKey(0, -1, 0), 0)
    with pytest.raises(ValueError, match="view is -1; views count from 0"):
        view_generator(SampleKey(0, 0, 0), -1)
