"""`jointssl speed step`: what it counts, what it leaves out, and that ratios are of what was timed."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from vissl_jointssl.plugin.hooks.step_timing import PARTS, StepTimingHook
from vissl_jointssl.speed import step
from vissl_jointssl.speed.ceiling import Ceiling, image_groups
from vissl_jointssl.speed.engine_runs import StepTimes
from vissl_jointssl.speed.measures import Settings
from vissl_jointssl.speed.released_step import ReleasedStep


def test_a_batch_is_counted_by_size_and_missing_slices_do_not_count() -> None:
    volumes = torch.zeros(2, 5, 1, 8, 6)
    volumes[1, 3:] = float("nan")
    assert image_groups([volumes, volumes]) == {(8, 6): 16}
    assert image_groups([torch.zeros(4, 3, 8, 8), torch.zeros(4, 3, 8, 8), torch.zeros(4, 3, 4, 4)]) == {
        (8, 8): 8,
        (4, 4): 4,
    }
    assert image_groups(torch.zeros(3, 3, 7, 9)) == {(7, 9): 3}


def test_the_ceiling_runs_every_image_through_the_whole_network_and_back() -> None:
    ceiling = Ceiling({(32, 32): 3, (16, 16): 2}, torch.device("cpu"))
    seen: list[tuple[int, ...]] = []
    gradients: list[bool] = []
    resnet = ceiling._resnet
    resnet.layer4.register_forward_hook(lambda module, inputs, output: seen.append(tuple(output.shape)))
    resnet.conv1.weight.register_post_accumulate_grad_hook(lambda weight: gradients.append(bool(weight.grad.any())))
    ceiling()
    assert seen == [(3, 2048, 1, 1), (2, 2048, 1, 1)]
    assert gradients == [True]  # the first layer's, once for all groups
    assert resnet.conv1.weight.grad is None
    assert resnet.conv1.weight.is_contiguous(memory_format=torch.channels_last)


def test_the_released_step_moves_the_weights_of_both_networks() -> None:
    step = ReleasedStep({(32, 32): 64}, torch.device("cpu"))
    networks = (step._resnet, step._blocks)
    before = [{name: weight.clone() for name, weight in network.named_parameters()} for network in networks]
    step()
    for network, kept in zip(networks, before, strict=True):
        moved = [name for name, weight in network.named_parameters() if not torch.equal(weight, kept[name])]
        assert len(moved) > 0.8 * len(kept)
    assert step._resnet.conv1.weight.is_contiguous()
    with pytest.raises(ValueError, match="65 slices are no volumes of 64"):
        ReleasedStep({(32, 32): 65}, torch.device("cpu"))


class Clock:
    """Time that passes only where a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


def test_times_are_of_whole_training_steps_and_the_other_is_timed_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr("vissl_jointssl.plugin.step_clock.time", clock)

    class Slow:
        def __iter__(self) -> Slow:
            return self

        def __next__(self) -> int:
            clock.now += 2.0
            return 7

        def __len__(self) -> int:
            return 3

    task = SimpleNamespace(device=torch.device("cpu"), train=True, data_iterator=Slow())

    def other(seconds: float, of: object) -> None:
        assert of is task
        clock.now += seconds

    hook = StepTimingHook(tmp_path / "times.json", {"slow": partial(other, 30.0), "fast": partial(other, 4.0)})
    clock.now += 50.0  # workers start
    hook.on_phase_start(task)
    assert len(task.data_iterator) == 3
    for _ in range(2):
        assert next(task.data_iterator) == 7
        clock.now += 8.0
        hook.on_step(task)
    task.train = False
    next(task.data_iterator)
    hook.on_step(task)
    hook.on_end(task)
    noted = json.loads((tmp_path / "times.json").read_text())
    assert 50e6 < noted.pop("peak") < 50e9  # bytes: PyTorch alone is that large, and no test is larger
    assert noted.pop("parts") == {name: [] for name in PARTS}
    assert 0 <= time.time() - noted.pop("began") < 60
    others = {"slow": [30.0, 30.0], "fast": [4.0, 4.0]}
    assert noted == {"steps": [10.0, 10.0], "others": others, "waits": [2.0, 2.0]}


def test_an_undisturbed_step_is_taken_apart_without_its_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr("vissl_jointssl.plugin.step_clock.time", clock)

    class Slow(list[int]):
        def __next__(self) -> int:
            clock.now += 2.0
            return 7

    task = SimpleNamespace(device=torch.device("cpu"), train=True, data_iterator=Slow())
    hook = StepTimingHook(tmp_path / "times.json")
    hook.on_phase_start(task)
    for _ in range(2):
        next(task.data_iterator)
        for seconds, event in ((5, "forward"), (1, "loss_and_meter"), (9, "backward"), (3, "update"), (0.5, "step")):
            clock.now += seconds
            getattr(hook, f"on_{event}")(task)
    hook.on_end(task)
    noted = json.loads((tmp_path / "times.json").read_text())
    assert noted["parts"] == {
        "forward": [5.0, 5.0],
        "loss": [1.0, 1.0],
        "backward": [9.0, 9.0],
        "optimizer": [3.0, 3.0],
        "rest": [0.5, 0.5],
    }
    assert noted["steps"] == [20.5, 20.5]


def test_ratios_leave_the_warm_up_out(monkeypatch: pytest.MonkeyPatch) -> None:
    runs: dict[str, Sequence[str]] = {}
    times = {
        "stage3": StepTimes(
            (99.0, 99.0, 12.0, 11.0, 13.0),
            (9.0, 9.0, 0.0, 0.0, 0.0),
            7,
            {"ceiling": (1.0, 1.0, 10.0, 10.0, 10.0), "released": (99.0, 99.0, 15.0, 14.0, 16.0)},
        ),
        "stage1": StepTimes((99.0, 99.0, 3.0, 3.0, 3.0), (0.0,) * 5, 7, {"ceiling": (1.0, 1.0, 2.0, 2.0, 2.0)}),
        "alone": StepTimes(
            (99.0, 99.0, 10.0, 10.0, 20.0),
            (90.0, 90.0, 0.5, 0.5, 1.0),
            7,
            parts={"loss": (9.0, 9.0, 0.1, 0.3, 0.2)},
            start_up=8.25,
        ),
    }

    def pretend(folder: Path, mode: str, overrides: Sequence[str]) -> StepTimes:
        runs[f"{folder.name} {mode}"] = overrides
        return times[folder.name]

    monkeypatch.setattr(step, "timed_run", pretend)
    monkeypatch.setattr(step, "SCAN_SHAPE", (8, 8, 4))
    measured = step.measure(Settings(repetitions=3), step.Sizes(2, 4, 8, 3, (16, 8)))
    assert list(runs) == ["stage3 three_by_turns", "stage1 by_turns", "alone alone"]
    assert runs["stage3 three_by_turns"] == runs["alone alone"]
    assert "config.DATA.TRAIN.DATA_LIMIT=15" in runs["stage1 by_turns"]
    assert step.ratios(measured) == {
        "step_over_ceiling": 1.2,
        "stage1_over_ceiling": 1.5,
        "released_over_ceiling": 1.5,
        "data_wait_share": pytest.approx(0.05),
    }
    assert measured["stage3"]["images"] == 16
    assert measured["stage1"]["images"] == 24
    said = step.table(measured)
    assert "stage 3: step 12.000 s, ceiling 10.000 s for 16 images; 1.200 times the ceiling" in said
    assert "the released step: 15.000 s, 1.500 times the ceiling" in said
    assert "a step of stage 3 alone: 10.000 s; its parts, ms: loss 200" in said
    assert "waiting for data: 5.00 % of it" in said
    assert "from the program's start to the first step: 8.2 s" in said
