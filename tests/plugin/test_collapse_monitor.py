"""The hook that watches stage 3 for collapse."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from vissl_jointssl.objectives.collapse import measure_collapse, recognised
from vissl_jointssl.plugin.collapse_limits import CollapseOptions
from vissl_jointssl.plugin.hooks.collapse_monitor import CollapseMonitorHook
from vissl_jointssl.plugin.hooks.measure_log import MeasureLog
from vissl_jointssl.plugin.hooks.progress import ProgressHook

from vissl.config import AttrDict  # isort: skip - after the plugin has made VISSL importable

VIEWS, VOLUMES, WIDTH, PROTOTYPES = 2, 4, 8, 5
NO_WARM_UP = {"warm_up": 0.0, "warm_up_steps": 0}


def _config(folder: Path) -> AttrDict:
    return AttrDict(
        {
            "CHECKPOINT": {"DIR": str(folder)},
            "DISTRIBUTED": {"NUM_NODES": 1},
            "HOOKS": {"TENSORBOARD_SETUP": {"USE_TENSORBOARD": False, "FLUSH_EVERY_N_MIN": 5}},
        }
    )


def _hook(folder: Path, loss: str = "inter_swav_loss", **options: Any) -> CollapseMonitorHook:
    log = MeasureLog(_config(folder), "collapse.jsonl", "Collapse")
    return CollapseMonitorHook(CollapseOptions(**options), loss, log, ProgressHook(folder))


def _batch(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Embeddings and scores of two alike views, view-major, and codes."""
    generator = torch.Generator().manual_seed(seed)
    prototypes = normalize(torch.randn(PROTOTYPES, WIDTH, generator=torch.Generator().manual_seed(99)), dim=1)
    one = torch.randn(VOLUMES, WIDTH, generator=generator)
    other = one + 0.5 * torch.randn(VOLUMES, WIDTH, generator=generator)
    embeddings = normalize(torch.cat([one, other]), dim=1)
    scores = embeddings @ prototypes.T
    # Not always most likely where the scores are: balancing moves volumes.
    moved = scores + 0.2 * torch.randn(PROTOTYPES, generator=generator)
    codes = (moved / 0.05).softmax(dim=1).reshape(VIEWS, VOLUMES, PROTOTYPES)
    return embeddings, scores, codes


def _task(iteration: int, batch: tuple[Tensor, Tensor, Tensor], **changed: Any) -> SimpleNamespace:
    embeddings, scores, codes = batch
    task = {
        "train": True,
        "iteration": iteration,
        "max_iteration": 100,
        "config": {"LOG_FREQUENCY": 1},
        "last_batch": SimpleNamespace(model_output=[embeddings, scores]),
        "loss": SimpleNamespace(num_views=VIEWS, last_codes=codes),
    }
    return SimpleNamespace(**(task | changed))


def _lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "collapse.jsonl").read_text().splitlines()]


def _looks(folder: Path) -> list[dict[str, Any]]:
    return [line for line in _lines(folder) if "mean_cosine" in line]


def _warnings(folder: Path) -> list[str]:
    return [line["warning"] for line in _lines(folder) if "warning" in line]


def test_a_look_measures_the_first_views_of_the_last_volumes(tmp_path: Path) -> None:
    hook = _hook(tmp_path, volumes=10)
    batches = [_batch(seed) for seed in range(4)]
    for iteration, batch in enumerate(batches):
        hook.on_update(_task(iteration, batch))
    embeddings = torch.cat([batch[0][:VOLUMES] for batch in batches])[-10:]
    scores = torch.cat([batch[1][:VOLUMES] for batch in batches])[-10:]
    pairs = torch.cat([batch[2].argmax(dim=2).T for batch in batches])[-10:]
    beaten = torch.cat([recognised(*batch[0].reshape(VIEWS, VOLUMES, WIDTH)) for batch in batches])[-10:]
    expected = measure_collapse(embeddings, scores.argmax(dim=1), pairs, batches[-1][2], PROTOTYPES, beaten)
    look = _looks(tmp_path)[-1]
    assert look.pop("iteration") == 3
    assert look == pytest.approx(asdict(expected))
    assert look["volumes"] == 10


def test_a_batch_larger_than_the_ring_leaves_its_last_volumes(tmp_path: Path) -> None:
    hook = _hook(tmp_path, volumes=3)
    batch = _batch(0)
    hook.on_update(_task(0, batch))
    expected = measure_collapse(batch[0][1:VOLUMES], batch[1][1:VOLUMES].argmax(dim=1), None, None, PROTOTYPES)
    assert _looks(tmp_path)[0]["effective_rank"] == pytest.approx(expected.effective_rank)
    assert _looks(tmp_path)[0]["volumes"] == 3


def test_deepclusterv2_is_measured_by_its_predictions(tmp_path: Path) -> None:
    embeddings, scores, _ = _batch(0)
    predictions = scores.reshape(VIEWS, VOLUMES, PROTOTYPES).softmax(dim=-1)
    loss = SimpleNamespace(num_views=VIEWS, last_predictions=predictions)
    task = _task(0, _batch(0), loss=loss, last_batch=SimpleNamespace(model_output=embeddings))
    _hook(tmp_path, "inter_deepclusterv2_loss").on_update(task)
    beaten = recognised(embeddings[:VOLUMES], embeddings[VOLUMES:])
    expected = measure_collapse(
        embeddings[:VOLUMES], predictions[0].argmax(dim=1), predictions.argmax(dim=2).T, None, PROTOTYPES, beaten
    )
    look = _looks(tmp_path)[0]
    assert look["marginal_error"] is None
    assert look == pytest.approx({"iteration": 0, **asdict(expected)})


def test_views_without_two_codes_agree_by_their_predictions(tmp_path: Path) -> None:
    batch = _batch(0)
    loss = SimpleNamespace(num_views=VIEWS, last_codes=batch[2][:1])
    _hook(tmp_path).on_update(_task(0, batch, loss=loss))
    first, second = batch[1].reshape(VIEWS, VOLUMES, PROTOTYPES).argmax(dim=2)
    assert _looks(tmp_path)[0]["agreement"] == pytest.approx(float((first == second).double().mean()))


def test_a_single_view_has_no_agreement(tmp_path: Path) -> None:
    embeddings, scores, codes = _batch(0)
    batch = (embeddings[:VOLUMES], scores[:VOLUMES], codes[:1])
    _hook(tmp_path).on_update(_task(0, batch, loss=SimpleNamespace(num_views=1, last_codes=codes[:1])))
    assert _looks(tmp_path)[0]["agreement_above_chance"] is None
    assert _looks(tmp_path)[0]["recognition"] is None


def test_it_looks_where_the_loss_is_logged_and_never_in_test_phases(tmp_path: Path) -> None:
    hook = _hook(tmp_path)
    for iteration in range(131):
        hook.on_update(_task(iteration, _batch(0), config={"LOG_FREQUENCY": 40}))
        hook.on_update(_task(iteration, _batch(0), train=False))
    assert [look["iteration"] for look in _looks(tmp_path)] == [0, 1, *range(5, 101, 5), 120]
    (tmp_path / "seldom").mkdir()
    seldom = _hook(tmp_path / "seldom", every=60)
    for iteration in range(101, 190):
        seldom.on_update(_task(iteration, _batch(0)))
    assert [look["iteration"] for look in _looks(tmp_path / "seldom")] == [120, 180]


def test_nothing_is_measured_before_there_are_two_volumes(tmp_path: Path) -> None:
    hook = _hook(tmp_path)
    hook.on_start(None)
    embeddings, scores, codes = _batch(0)
    first = (embeddings[::VOLUMES], scores[::VOLUMES], codes[:, :1])
    hook.on_update(_task(0, first))
    assert _looks(tmp_path) == []
    hook.on_update(_task(1, first))
    assert [look["volumes"] for look in _looks(tmp_path)] == [2]


def test_what_is_kept_does_not_follow_the_batch_and_holds_no_graph(tmp_path: Path) -> None:
    hook = _hook(tmp_path)
    embeddings, scores, codes = _batch(0)
    embeddings = embeddings.clone().requires_grad_()
    hook.on_update(_task(0, (embeddings * 1, scores.requires_grad_(), codes)))
    assert hook._rings is not None
    assert not any(ring.requires_grad for ring in hook._rings)
    before = hook._rings[0].clone()
    with torch.no_grad():
        embeddings.zero_()
    assert torch.equal(hook._rings[0], before)


def _alike() -> tuple[Tensor, Tensor, Tensor]:
    embeddings, scores, codes = _batch(0)
    return embeddings[:1].expand_as(embeddings), scores[:1].expand_as(scores), codes[:1, :1].expand_as(codes)


def test_a_collapse_is_said_once_in_every_place(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log, progress = MeasureLog(_config(tmp_path), "collapse.jsonl", "Collapse"), ProgressHook(tmp_path)
    hook = CollapseMonitorHook(CollapseOptions(**NO_WARM_UP, patience=3), "inter_swav_loss", log, progress)
    with caplog.at_level(logging.WARNING):
        for iteration in range(8):
            hook.on_update(_task(iteration, _alike()))
    alike = [text for text in _warnings(tmp_path) if "all volumes look alike" in text]
    assert len(alike) == 1
    assert alike[0].startswith("iteration 2: all volumes look alike: mean cosine 1.000 over the last 12 volumes")
    assert [record.message for record in caplog.records if "look alike" in record.message] == alike
    progress.on_end(SimpleNamespace(iteration=8, max_iteration=8, train=True, last_batch=None))
    assert json.loads((tmp_path / "progress.json").read_text())["warnings"] == _warnings(tmp_path)


def test_a_healthy_run_is_silent(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    hook = _hook(tmp_path, **NO_WARM_UP)
    for iteration in range(30):
        hook.on_update(_task(iteration, _batch(iteration)))
    assert len(_looks(tmp_path)) == 30
    assert _warnings(tmp_path) == []
    assert caplog.records == []


def test_the_beginning_and_single_looks_are_not_judged(tmp_path: Path) -> None:
    hook = _hook(tmp_path, warm_up=0.5, warm_up_steps=0, patience=3)
    for iteration in range(50):
        hook.on_update(_task(iteration, _alike()))
    assert _warnings(tmp_path) == []
    for iteration in range(50, 60):
        hook._seen = 0  # the ring holds what each look brings
        hook.on_update(_task(iteration, _alike() if iteration % 3 else _batch(iteration)))
    cosines = [look["mean_cosine"] for look in _looks(tmp_path)[50:]]
    assert sum(cosine > 0.99 for cosine in cosines) == 7
    assert not any("all volumes look alike" in text for text in _warnings(tmp_path))


def test_a_resumed_run_does_not_repeat_itself(tmp_path: Path) -> None:
    first, second = (_hook(tmp_path, **NO_WARM_UP, patience=1) for _ in range(2))
    first.on_update(_task(0, _alike()))
    said = _warnings(tmp_path)
    assert said
    second.state.set_classy_state(json.loads(json.dumps(first.state.get_classy_state())))
    second.on_update(_task(1, _alike()))
    assert _warnings(tmp_path) == said


def test_embeddings_that_are_not_finite_are_said_and_written_as_null(tmp_path: Path) -> None:
    embeddings, scores, codes = _batch(0)
    hook = _hook(tmp_path, **NO_WARM_UP, patience=1)
    hook.on_update(_task(0, (embeddings * torch.nan, scores, codes)))
    assert _looks(tmp_path)[0]["mean_cosine"] is None
    assert _looks(tmp_path)[0]["recognition"] is None
    assert len(_warnings(tmp_path)) == 1
    assert "embeddings or codes hold NaN or infinity" in _warnings(tmp_path)[0]


def test_the_limits_are_written_first(tmp_path: Path) -> None:
    _hook(tmp_path, mean_cosine=0.9).on_start(None)
    assert _lines(tmp_path)[0]["limits"]["mean_cosine"] == 0.9
    assert set(_lines(tmp_path)[0]["limits"]) < {*CollapseOptions().__dict__}


def test_two_ranks_measure_what_one_rank_with_both_batches_does(
    tmp_path: Path, on_two_ranks: Callable[[Callable[[int], Any]], list[Any]]
) -> None:
    batches = [_batch(seed) for seed in range(4)]

    def run(rank: int) -> None:
        hook = _hook(tmp_path, volumes=VOLUMES * 2)
        for iteration in range(2):
            hook.on_update(_task(iteration, batches[2 * iteration + rank]))

    on_two_ranks(run)
    both = _looks(tmp_path)
    alone = tmp_path / "alone"
    alone.mkdir()
    hook = _hook(alone, volumes=VOLUMES * 4)
    for iteration in range(2):
        parts = zip(batches[2 * iteration], batches[2 * iteration + 1], strict=True)
        embeddings, scores, codes = (
            torch.cat([part.reshape(VIEWS, VOLUMES, -1) for part in pair], dim=1) for pair in parts
        )
        hook.on_update(_task(iteration, (embeddings.flatten(0, 1), scores.flatten(0, 1), codes)))
    for look, expected, known in zip(both, _looks(alone), (2, 4), strict=True):
        del expected["recognition"]
        strangers = [recognised(*batch[0].reshape(VIEWS, VOLUMES, WIDTH)) for batch in batches[:known]]  # of one rank
        assert look.pop("recognition") == pytest.approx(float(torch.cat(strangers).mean()))
        assert look == pytest.approx(expected, rel=1e-6)


def test_keeping_a_batch_costs_little_and_a_look_milliseconds(tmp_path: Path) -> None:
    # The paper's sizes: 24 volumes of width 640, 3000 prototypes, 256 volumes kept. A step takes a second and more.
    generator = torch.Generator().manual_seed(0)
    embeddings = normalize(torch.randn(48, 640, generator=generator), dim=1)
    scores, codes = torch.randn(48, 3000, generator=generator), torch.rand(2, 24, 3000, generator=generator)
    hook = _hook(tmp_path)
    kept, looked = [], []
    for iteration in range(101, 121):
        began = time.perf_counter()
        hook.on_update(_task(iteration, (embeddings, scores, codes), config={"LOG_FREQUENCY": 1000}))
        kept.append(time.perf_counter() - began)
    for iteration in range(1000, 1005):
        began = time.perf_counter()
        hook.on_update(_task(iteration, (embeddings, scores, codes)))
        looked.append(time.perf_counter() - began)
    assert min(kept) < 0.01
    assert min(looked) < 0.2
