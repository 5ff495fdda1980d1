"""The last line of a failed run is its cause."""

from __future__ import annotations

import multiprocessing

import pytest
import torch

from vissl_jointssl.plugin.failure import cause_of


def caught(function) -> BaseException:
    """What a call raises."""
    with pytest.raises(BaseException) as error:  # noqa: PT011 - any kind is looked at
        function()
    return error.value


class BreaksAt3(torch.utils.data.Dataset):
    """A data set with one bad item."""

    def __len__(self):
        return 4

    def __getitem__(self, index):
        if index == 3:
            raise OSError("image 3 is truncated\nsecond line")
        return index


def fail_without_words():
    raise AssertionError


def fail_in_a_chain():
    try:
        {}["key"]
    except KeyError as error:
        raise ValueError("config.X is missing; set it") from error


def test_a_plain_error_is_named_with_its_message():
    assert cause_of(caught(lambda: int("x"))) == "ValueError: invalid literal for int() with base 10: 'x'"


def test_the_explanation_counts_and_not_what_it_explains():
    assert cause_of(caught(fail_in_a_chain)) == "ValueError: config.X is missing; set it"


def test_an_error_without_a_message_is_named_with_its_place():
    cause = cause_of(caught(fail_without_words))
    assert cause.startswith("AssertionError (in ")
    assert "test_failure.py:" in cause


def test_a_loader_workers_error_is_named_in_one_line():
    loader = torch.utils.data.DataLoader(
        BreaksAt3(), num_workers=1, multiprocessing_context=multiprocessing.get_context("fork")
    )
    assert cause_of(caught(lambda: list(loader))) == "OSError: image 3 is truncated"


def test_a_ranks_error_is_named_although_it_crossed_a_process_as_text():
    text = (
        "\n\n-- Process 1 terminated with the following error:\nTraceback (most recent call last):\n"
        '  File "spawn.py", line 90, in _wrap\n    fn(i, *args)\n'
        "FileNotFoundError: manifest.csv does not exist\n"
    )
    error = torch.multiprocessing.ProcessRaisedException(text, 1, 4711)
    assert cause_of(error) == "FileNotFoundError: manifest.csv does not exist"


def test_an_interrupt_says_how_to_go_on():
    assert cause_of(KeyboardInterrupt()) == "interrupted; the same command resumes from the last checkpoint"
