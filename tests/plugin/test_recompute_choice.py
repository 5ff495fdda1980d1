"""When blocks are computed again."""

from __future__ import annotations

import logging
import re

import pytest
import torch
from torch import nn

import vissl_jointssl.plugin  # noqa: F401 - makes VISSL importable
from vissl_jointssl.machine_memory import MachineMemory
from vissl_jointssl.models.slice_encoder import SliceEncoder
from vissl_jointssl.plugin import free_memory as free_memory_module
from vissl_jointssl.plugin import recompute_choice
from vissl_jointssl.plugin.free_memory import free_memory
from vissl_jointssl.plugin.options import TrunkOptions, read_options
from vissl_jointssl.plugin.recompute_choice import RecomputeChoice

CPU = torch.device("cpu")
GIB = 2**30
KEPT = 128 * 128 * 128 * 427 * 4  # slices, pixels, numbers per pixel, bytes: 3.3 GiB


@pytest.fixture(scope="module")
def blocks() -> nn.ModuleDict:
    with torch.device("meta"):
        return SliceEncoder().blocks


@pytest.fixture
def given_back(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    calls: list[bool] = []
    monkeypatch.setattr(recompute_choice, "give_back_freed_maps", lambda: calls.append(True))
    return calls


@pytest.mark.parametrize(("asked", "expected"), [("none", 0), ("blocks", 1)])
def test_what_the_user_says_is_done(
    monkeypatch: pytest.MonkeyPatch, blocks: nn.ModuleDict, given_back: list[bool], asked: str, expected: int
) -> None:
    monkeypatch.setattr(recompute_choice, "free_memory", lambda device, ranks: pytest.fail("asked nobody"))
    volumes = torch.zeros(1, 2, 1, 8, 8)
    assert RecomputeChoice(asked).blocks_at_once(blocks, volumes) == expected
    assert given_back == [True] * expected


@pytest.mark.parametrize(("free", "expected"), [(1.5 * KEPT, 0), (1.2 * KEPT, 1)])
def test_auto_recomputes_what_would_not_fit_and_says_so_once(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    blocks: nn.ModuleDict,
    given_back: list[bool],
    free: float,
    expected: int,
) -> None:
    monkeypatch.setattr(recompute_choice, "free_memory", lambda device, ranks: int(free))
    volumes = torch.zeros(1).expand(2, 64, 1, 128, 128)
    choice = RecomputeChoice("auto")
    with caplog.at_level(logging.INFO):
        assert choice.blocks_at_once(blocks, volumes) == expected
        assert choice.blocks_at_once(blocks, volumes) == expected
    assert given_back == [True] * expected
    (said,) = caplog.messages
    words = "its blocks are computed again in the backward pass" if expected else "nothing is recomputed"
    assert f"a step of 128 slices of 128 x 128 keeps about 4.3 GiB, {free / GIB:.1f} GiB are free" in said
    assert words in said


def test_half_precision_counts_as_half(
    monkeypatch: pytest.MonkeyPatch, blocks: nn.ModuleDict, given_back: list[bool]
) -> None:
    monkeypatch.setattr(recompute_choice, "free_memory", lambda device, ranks: int(0.9 * KEPT))
    volumes = torch.zeros(1).expand(2, 64, 1, 128, 128)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert RecomputeChoice("auto").blocks_at_once(blocks, volumes) == 0
    assert RecomputeChoice("auto").blocks_at_once(blocks, volumes) == 1
    assert given_back == [True]


def test_a_rank_with_room_recomputes_if_another_has_none(
    monkeypatch: pytest.MonkeyPatch, blocks: nn.ModuleDict, given_back: list[bool]
) -> None:
    monkeypatch.setattr(recompute_choice, "free_memory", lambda device, ranks: 100 * GIB)
    monkeypatch.setattr(recompute_choice, "over_ranks", lambda mine, operation: torch.ones_like(mine))
    assert RecomputeChoice("auto").blocks_at_once(blocks, torch.zeros(1, 2, 1, 8, 8)) == 1
    assert given_back == [True]


def test_a_system_that_does_not_tell_recomputes_nothing_and_is_named(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, blocks: nn.ModuleDict
) -> None:
    monkeypatch.setattr(recompute_choice, "free_memory", lambda device, ranks: None)
    with caplog.at_level(logging.INFO):
        assert RecomputeChoice("auto").blocks_at_once(blocks, torch.zeros(1, 2, 1, 8, 8)) == 0
    assert "this system does not tell what is free" in caplog.text


def test_free_memory_is_a_ranks_share_of_what_the_job_may_take(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(free_memory_module, "machine_memory", lambda: None)
    assert free_memory(CPU, 1) is None
    monkeypatch.setattr(free_memory_module, "machine_memory", lambda: MachineMemory(64_000, 32_000, 9_000, 1_000))
    assert free_memory(CPU, 1) == 8_000
    assert free_memory(CPU, 4) == 2_000


def test_an_unknown_choice_answers_with_the_nearest() -> None:
    _, faults = read_options(TrunkOptions, {"RECOMPUTE": "block"}, "MODEL.TRUNK.JOINT_SSL")
    assert len(faults) == 1
    assert re.search(r"RECOMPUTE is 'block'; did you mean blocks\?", faults[0])
    options, faults = read_options(TrunkOptions, {"RECOMPUTE": None}, "MODEL.TRUNK.JOINT_SSL")
    assert (options.recompute, faults) == ("auto", [])
