from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from vissl_jointssl.views import ViewParameters


@pytest.fixture
def random_volume() -> Callable[..., Tensor]:
    def make(*shape: int, seed: int = 0) -> Tensor:
        return torch.rand(shape, generator=torch.Generator().manual_seed(seed))

    return make


@pytest.fixture
def whole() -> Callable[..., ViewParameters]:
    """Parameters that take a volume of this shape as it is, but for what is given."""

    def make(shape: tuple[int, int, int], **changes: object) -> ViewParameters:
        facts: dict = {"size": shape[1:], "num_slices": shape[0], "first_slice": 0, "slices": shape[0]}
        return ViewParameters(**{**facts, **changes})

    return make
