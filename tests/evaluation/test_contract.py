"""One contract for every task, on a toy task of two weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torchvision

from vissl_jointssl.evaluation.contract import evaluate
from vissl_jointssl.evaluation.plan import Plan, PlanError
from vissl_jointssl.evaluation.results import RunResult, read_results

pytestmark = pytest.mark.usefixtures("toy_task")


def silent(what: str, done: int, total: int) -> None:
    pass


@pytest.fixture
def plan(tmp_path: Path, make_manifest: Callable[..., Path]) -> Plan:
    return Plan("toy", "brightness", make_manifest(), {"scratch": None}, tmp_path / "out", device="cpu")


def numbers(runs: list[RunResult]) -> list[tuple[object, ...]]:
    """All but the wall time."""
    return [(r.weights, r.fraction, r.seed, r.metrics, r.cases, r.losses, r.train_rows) for r in runs]


def test_every_start_fraction_and_seed_is_in_the_results(plan: Plan, tmp_path: Path) -> None:
    torch.manual_seed(0)
    torch.save(torchvision.models.resnet50(weights=None).state_dict(), tmp_path / "net.pth")
    plan = replace(plan, weights={"scratch": None, "net": tmp_path / "net.pth"}, seeds=(0, 1, 2), fractions=(0.5, 1.0))
    results = evaluate(plan, silent)
    assert {(r.weights, r.fraction, r.seed) for r in results.runs} == {
        (name, fraction, seed) for name in ("scratch", "net") for fraction in (0.5, 1.0) for seed in (0, 1, 2)
    }
    assert [r.train_rows for r in results.runs if r.weights == "net"] == [4, 4, 4, 8, 8, 8]
    assert results.weights["net"]["sha256"] is not None
    assert results.data["train"] == 8
    assert results.data["test"] == 6
    (summary,) = [s for s in results.summary if s.weights == "net" and s.fraction == 1.0]
    values = torch.tensor([r.metrics["correct"] for r in results.runs if (r.weights, r.fraction) == ("net", 1.0)])
    assert summary.mean == pytest.approx(float(values.mean()))
    assert summary.deviation == pytest.approx(float(values.std()))
    assert {(c["weights"], c["against"], c["fraction"], c["cases"]) for c in results.comparisons} == {
        ("net", "scratch", 0.5, 6),
        ("net", "scratch", 1.0, 6),
    }
    assert numbers(read_results(plan.out / "results.json").runs) == numbers(results.runs)


def test_equal_seeds_give_equal_numbers_and_other_seeds_others(plan: Plan, tmp_path: Path) -> None:
    first = evaluate(replace(plan, seeds=(0, 1)), silent)
    again = evaluate(replace(plan, seeds=(0, 1), out=tmp_path / "again"), silent)
    assert numbers(first.runs) == numbers(again.runs)
    assert first.runs[0].losses != first.runs[1].losses


def test_a_killed_run_goes_on_and_gives_what_an_undisturbed_one_gives(plan: Plan, tmp_path: Path) -> None:
    class Killed(BaseException):
        pass

    epochs: list[int] = []

    def kill(what: str, done: int, total: int) -> None:
        if what == "epoch":
            epochs.append(done)
            if done == 2 and epochs.count(2) == 1:
                raise Killed

    undisturbed = evaluate(replace(plan, out=tmp_path / "undisturbed"), silent)
    with pytest.raises(Killed):
        evaluate(plan, kill)
    assert not (plan.out / "results.json").exists()
    assert numbers(evaluate(plan, kill).runs) == numbers(undisturbed.runs)
    assert epochs == [0, 1, 2, 2, 3]
    assert not list(plan.out.rglob("state.pt"))


def test_finished_runs_are_kept_and_changed_ones_done_again(plan: Plan) -> None:
    evaluate(plan, silent)
    run_file = next(plan.out.rglob("run.json"))
    before = run_file.stat().st_mtime_ns
    evaluate(replace(plan, seeds=(0, 1)), silent)
    assert run_file.stat().st_mtime_ns == before
    assert evaluate(replace(plan, options={"epochs": 4}), silent).runs[0].losses[3:]
    assert run_file.stat().st_mtime_ns != before


def test_a_state_of_other_options_is_not_gone_on_with(plan: Plan, tmp_path: Path) -> None:
    class Killed(BaseException):
        pass

    def kill(what: str, done: int, total: int) -> None:
        if what == "epoch" and done == 2:
            raise Killed

    with pytest.raises(Killed):
        evaluate(plan, kill)
    slower = replace(plan, options={"learning_rate": 0.1})
    fresh = evaluate(replace(slower, out=tmp_path / "fresh"), silent)
    assert numbers(evaluate(slower, silent).runs) == numbers(fresh.runs)


def test_what_does_not_fit_is_said_before_anything_is_trained(plan: Plan, make_manifest: Callable[..., Path]) -> None:
    with pytest.raises(PlanError, match=r"options.epoch is read by nothing; did you mean epochs\?"):
        evaluate(replace(plan, options={"epoch": 3}), silent)
    with pytest.raises(PlanError, match=r"no task is called 'brightnes'; did you mean brightness\?"):
        evaluate(replace(plan, task="brightnes"), silent)
    with pytest.raises(PlanError, match=r"no row of volume with the labels of brightness is in the split 'test'"):
        evaluate(replace(plan, manifest=make_manifest(test=0)), silent)
    with pytest.raises(PlanError, match=r"1 training rows have only the classes \[0\]"):
        evaluate(replace(plan, manifest=make_manifest(train=1)), silent)
    assert not list(plan.out.rglob("run.json"))


def test_a_diverged_loss_stops_the_run_and_names_the_epoch(plan: Plan) -> None:
    with pytest.raises(FloatingPointError, match=r"the loss of epoch \d is (nan|inf); lower options.learning_rate"):
        evaluate(replace(plan, options={"learning_rate": float("inf")}), silent)


def test_the_results_are_plain_json(plan: Plan) -> None:
    evaluate(plan, silent)
    content = json.loads((plan.out / "results.json").read_text())
    assert content["made_with"]["command"]
    assert content["weights"]["scratch"] == {"path": None, "sha256": None, "account": "random start"}
