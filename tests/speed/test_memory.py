"""Peaks of memory."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from vissl_jointssl.speed import memory
from vissl_jointssl.speed.measures import MEASURES, Settings, load_measure
from vissl_jointssl.speed.memory import StepSize
from vissl_jointssl.speed.memory_step import measure_step

MIB = 2**20


class Steps:
    """Stands for the processes: what each contestant says, turn by turn, and the gradients that it leaves."""

    def __init__(self, gradients: dict[str, torch.Tensor], fails: str = "") -> None:
        self.gradients, self.fails = gradients, fails
        self.turns: list[str] = []

    def __call__(self, command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        slices, side, device, recompute, file = command[3:]
        assert (slices, side, device) == ("8", "32", "cpu")
        name = Path(file).name
        assert recompute == {"plain": "0", "recomputed": "1"}[name]
        self.turns.append(name)
        if name == self.fails:
            return subprocess.CompletedProcess(command, 1, "", "Traceback\nOutOfMemoryError: CUDA out of memory\n")
        torch.save(self.gradients[name], file)
        turn = self.turns.count(name)
        seconds = {"plain": [2.0, 9.0, 4.0], "recomputed": [5.0, 1.0, 8.0]}[name][turn - 1]
        size = {"plain": [100.0, 400.0, 200.0], "recomputed": [60.0, 50.0, 70.0]}[name][turn - 1]
        return subprocess.CompletedProcess(command, 0, json.dumps({"seconds": seconds, "bytes": size * MIB}), "")


GRADIENT = torch.tensor([3.0, 4.0])


def _measured(monkeypatch: pytest.MonkeyPatch, again: torch.Tensor, fails: str = "") -> tuple[dict[str, Any], Steps]:
    steps = Steps({"plain": GRADIENT, "recomputed": again}, fails)
    monkeypatch.setattr(memory.subprocess, "run", steps)
    monkeypatch.setattr(
        memory, "machine", lambda packages: {"cores": 2, "processor": "X", "versions": {}, "commit": "c"}
    )
    return memory.measure(Settings(repetitions=3), StepSize(8, 32)), steps


def test_contestants_take_turns_and_medians_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    measured, steps = _measured(monkeypatch, GRADIENT + torch.tensor([0.0, 3e-5]))
    assert steps.turns == ["plain", "recomputed"] * 3
    assert memory.ratios(measured) == {"checkpointed_memory_share": 60 / 200, "checkpointed_step_ratio": 5 / 4}
    assert measured["largest_difference"] == pytest.approx(3e-5 / 5, rel=0.05)
    said = memory.table(measured)
    assert "30 % of the plain step's memory in 1.25 times its time" in said
    assert "768 slices of 224 x 224 (F = 64, 6 volumes, 2 views): not measured; jointssl speed memory" in said
    json.dumps(measured)


@pytest.mark.parametrize("again", [torch.tensor([3.0, 4.001]), torch.tensor([3.0, float("nan")])])
def test_other_gradients_give_no_ratio(monkeypatch: pytest.MonkeyPatch, again: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"differ from the plain ones by .* more than 1e-05; nothing is compared"):
        _measured(monkeypatch, again)


def test_a_step_that_finds_no_memory_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"the plain step of 8 slices of 32 x 32 failed \(exit 1\): OutOfMemory"):
        _measured(monkeypatch, GRADIENT, fails="plain")


def test_it_is_registered() -> None:
    assert "memory" in MEASURES
    assert load_measure("memory") is memory


def test_a_step_leaves_the_gradients_of_every_weight(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # what it sets in glibc's malloc would stay for the rest of the tests
    monkeypatch.setattr("vissl_jointssl.speed.memory_step.give_back_freed_maps", lambda: True)
    for recompute in (0, 1):
        found = measure_step(2, 40, "cpu", recompute, tmp_path / str(recompute))
        assert found["seconds"] > 0
        assert set(found) == {"seconds", "bytes"}
    plain, again = (torch.load(tmp_path / name, weights_only=True) for name in "01")
    assert plain.shape == (23_508_032,)  # a ResNet-50 without its classifier
    assert plain.norm() > 0
    assert (again - plain).norm() <= 1e-5 * plain.norm()


@pytest.mark.slow
def test_recomputing_halves_the_peak() -> None:
    measured = memory.measure(Settings(repetitions=1), StepSize(48, 112))
    assert measured["checkpointed_memory_share"] < 0.5
