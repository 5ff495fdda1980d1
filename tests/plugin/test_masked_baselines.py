"""The hook that writes stage 2's loss beside its two baselines."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from vissl_jointssl.objectives.masked_baselines import mean_embedding_distance, neighbour_distance
from vissl_jointssl.plugin.hooks.masked_baselines import MaskedBaselinesHook
from vissl_jointssl.plugin.hooks.measure_log import MeasureLog
from vissl_jointssl.plugin.hooks.progress import ProgressHook

from vissl.config import AttrDict  # isort: skip - after the plugin has made VISSL importable

MASK = torch.tensor([[0, 1, 0, 0], [0, 0, 1, 0], [0, 1, 0, 0], [1, 0, 0, 1]]).bool()


def _hook(folder: Path) -> MaskedBaselinesHook:
    config = AttrDict(
        {
            "CHECKPOINT": {"DIR": str(folder)},
            "DISTRIBUTED": {"NUM_NODES": 1},
            "HOOKS": {"TENSORBOARD_SETUP": {"USE_TENSORBOARD": False}},
        }
    )
    return MaskedBaselinesHook(MeasureLog(config, "masked_baselines.jsonl", "MaskedBaselines"), ProgressHook(folder))


def _target() -> Tensor:
    """Four volumes of 4 slices, of which the second one's last is padding, with unit embeddings."""
    target = torch.randn(4, 4, 6, generator=torch.Generator().manual_seed(0))
    target[1, 3] = 0
    return target


def _task(iteration: int, target: Tensor, mask: Tensor, train: bool = True) -> SimpleNamespace:
    batch = SimpleNamespace(model_output=[target + 1, target, mask], loss=torch.tensor(1.5))
    return SimpleNamespace(
        train=train, iteration=iteration, max_iteration=9, last_batch=batch, config={"LOG_FREQUENCY": 10}
    )


def _lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "masked_baselines.jsonl").read_text().splitlines()]


def test_both_baselines_stand_beside_the_loss_in_every_place(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    hook, target = _hook(tmp_path), _target()
    valid = torch.ones_like(MASK)
    valid[1, 3] = False
    mean, neighbours = (float(guess(target, MASK, valid)) for guess in (mean_embedding_distance, neighbour_distance))
    with caplog.at_level(logging.INFO):
        hook.on_update(_task(10, target, MASK))
    assert _lines(tmp_path) == [
        {
            "iteration": 10,
            "loss": 1.5,
            "mean_embedding": pytest.approx(mean),
            "neighbours": pytest.approx(neighbours),
        }
    ]
    assert caplog.messages == [
        f"iteration 10: loss 1.5000; the mean embedding would have {mean:.4f}, the average of the neighbours "
        f"{neighbours:.4f}"
    ]
    hook._progress.on_end(SimpleNamespace(iteration=10, max_iteration=10, train=True, last_batch=None))
    beside = json.loads((tmp_path / "progress.json").read_text())["beside_loss"]
    assert beside == pytest.approx({"mean_embedding": mean, "neighbours": neighbours})


def test_it_writes_where_vissl_logs_the_loss_and_never_in_test_phases(tmp_path: Path) -> None:
    hook = _hook(tmp_path)
    for iteration in range(131):
        hook.on_update(_task(iteration, _target(), MASK))
        hook.on_update(_task(iteration, _target(), MASK, train=False))
    assert [line["iteration"] for line in _lines(tmp_path)] == [0, 1, *range(5, 101, 5), 110, 120, 130]


def test_two_ranks_write_what_one_rank_with_both_batches_does(
    tmp_path: Path, on_two_ranks: Callable[[Callable[[int], Any]], list[Any]]
) -> None:
    mask = MASK.clone()  # the second rank hides three slices, the first two
    target = _target()
    between = (tmp_path / "one", tmp_path / "two")
    for folder in between:
        folder.mkdir()
    _hook(between[0]).on_update(_task(0, target, mask))

    def run(rank: int) -> None:
        share = slice(2 * rank, 2 * rank + 2)
        # The mean over visible slices is each rank's own; neighbours are each volume's own.
        _hook(between[1]).on_update(_task(0, target[share], mask[share]))

    on_two_ranks(run)
    (one,), (two,) = _lines(between[0]), _lines(between[1])
    assert two["neighbours"] == pytest.approx(one["neighbours"])
