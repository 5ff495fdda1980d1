from __future__ import annotations

import math

import pytest
import torch

from vissl_jointssl.models.position_code import position_code


def test_the_code_equals_a_loop_over_sines_and_cosines() -> None:
    code = position_code(5, 6, dtype=torch.float64)
    for place in range(5):
        for pair in range(3):
            angle = place / 10_000 ** (2 * pair / 6)
            assert code[place, pair].item() == pytest.approx(math.sin(angle))
            assert code[place, 3 + pair].item() == pytest.approx(math.cos(angle))


def test_a_longer_volume_extends_the_code() -> None:
    assert torch.equal(position_code(256, 8)[:64], position_code(64, 8))


def test_no_two_of_1000_slices_share_a_code() -> None:
    code = position_code(1000, 640)
    distance = torch.cdist(code, code).fill_diagonal_(float("inf"))
    assert distance.min() > 1.0


def test_an_odd_width_is_refused() -> None:
    with pytest.raises(ValueError, match="its width must be even, got 7"):
        position_code(4, 7)
