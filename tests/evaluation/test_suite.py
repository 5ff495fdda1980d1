"""Suites: several plans checked together and run one after the other."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
import yaml

from vissl_jointssl.evaluation.plan import SCRATCH, Plan
from vissl_jointssl.evaluation.results import read_results
from vissl_jointssl.evaluation.suite import SuiteError, is_suite, read_suite
from vissl_jointssl.evaluation.suite_run import run_suite
from vissl_jointssl.evaluation.task import Progress
from vissl_jointssl.report.evaluations import read_evaluations

pytestmark = pytest.mark.usefixtures("toy_task")
Write = Callable[..., Path]


def silent(plan: Plan) -> Progress:
    return lambda what, done, total: None


@pytest.fixture
def write_suite(tmp_path: Path, make_manifest: Callable[..., Path]) -> Write:
    """A suite of two evaluations of the toy task."""
    plan = {"name": "toy", "task": "brightness", "manifest": str(make_manifest()), "weights": [SCRATCH]}
    (tmp_path / "plans").mkdir()
    (tmp_path / "plans" / "toy.yaml").write_text(yaml.safe_dump(plan))

    def write(**changes: Any) -> Path:
        path = tmp_path / "plans" / "suites" / "mine.yaml"
        path.parent.mkdir(exist_ok=True)
        content = {
            "name": "mine",
            "out": str(tmp_path / "out"),
            "weights": {"scratch": "scratch", "again": "scratch"},
            "evaluations": [
                {"plan": "../toy.yaml"},
                {"plan": "../toy.yaml", "starts": ["again"], "set": {"name": "short", "options.epochs": 1, "seeds": 2}},
            ],
        }
        path.write_text(yaml.safe_dump(content | changes, sort_keys=False))
        return path

    return write


def test_each_evaluation_has_its_starts_its_changes_and_its_folder(write_suite: Write, tmp_path: Path) -> None:
    suite = read_suite(write_suite(), ["device=cpu"])
    first, second = suite.plans
    assert (first.name, tuple(first.weights), first.seeds) == ("toy", ("scratch", "again"), (0,))
    assert (second.name, tuple(second.weights), second.seeds) == ("short", ("again",), (0, 1))
    assert second.options == {"epochs": 1}
    assert [plan.out for plan in suite.plans] == [tmp_path / "out" / "toy", tmp_path / "out" / "short"]
    assert {plan.device for plan in suite.plans} == {"cpu"}


def test_weights_of_the_command_line_replace_the_suites_and_what_is_left_out_is_known(
    write_suite: Write, tmp_path: Path
) -> None:
    evaluations = [{"plan": "../toy.yaml", "starts": ["scratch", "stage1", "stage3"]}]
    path = write_suite(evaluations=evaluations, weights={"scratch": "scratch", "stage1": "a", "stage3": "b"})
    suite = read_suite(path, ["weights=[scratch,stage3=runs/mine/stage3]", f"out={tmp_path / 'other'}"])
    assert dict(suite.plans[0].weights) == {"scratch": None, "stage3": Path("runs/mine/stage3")}
    assert suite.left_out == ("stage1",)
    assert suite.plans[0].out == tmp_path / "other" / "toy"
    with pytest.raises(SuiteError, match=r"weights 'stage4' is no start of any evaluation; did you mean stage\d\?"):
        read_suite(path, ["weights=[stage4=x,stage3=b]"])
    with pytest.raises(SuiteError, match="'runs/x' of weights has no name; say START=runs/x"):
        read_suite(path, ["weights=[runs/x]"])


def test_every_fault_of_a_suite_is_said_at_once(write_suite: Write) -> None:
    path = write_suite(
        weight={},
        name="",
        parameters=["papr"],
        evaluations=[{"plan": "../toy.yaml", "start": ["x"]}, {"starts": []}, {"plan": "../toy.yaml", "set": 3}],
    )
    with pytest.raises(SuiteError) as caught:
        read_suite(path, ["epochs=3"])
    for words in (
        "'weight' is read by nothing; did you mean weights?",
        "'name' is missing",
        "'epochs=3' changes nothing of a suite",
        "no preset is called 'papr'; did you mean paper?",
        "evaluation 1: 'start' is read by nothing; did you mean starts?",
        "evaluation 2 is {'starts': []}, expected a mapping with plan: FILE",
        "evaluation 3: set is 3",
    ):
        assert words in str(caught.value)


def test_two_evaluations_of_one_name_are_refused(write_suite: Write) -> None:
    with pytest.raises(SuiteError, match=r"two evaluations are called 'toy'; name one with set: {name: ...}"):
        read_suite(write_suite(evaluations=[{"plan": "../toy.yaml"}, {"plan": "../toy.yaml"}]))
    with pytest.raises(SuiteError, match=r"nowhere.yaml: cannot be read as YAML"):
        read_suite(write_suite(evaluations=[{"plan": "../nowhere.yaml"}]))


def test_small_numbers_of_a_suite_stay_numbers(write_suite: Write) -> None:
    step = {"plan": "../toy.yaml", "set": {"options.learning_rate": 1.0e-5, "fractions": [0.5, 1.0]}}
    (plan,) = read_suite(write_suite(evaluations=[step])).plans
    assert plan.options == {"learning_rate": 1e-5}
    assert plan.fractions == (0.5, 1.0)


def test_a_suite_is_told_from_a_plan(write_suite: Write, tmp_path: Path) -> None:
    assert is_suite(write_suite())
    assert not is_suite(tmp_path / "plans" / "toy.yaml")
    assert not is_suite(tmp_path / "nowhere.yaml")


def test_running_leaves_results_and_a_record_that_the_report_reads(write_suite: Write, tmp_path: Path) -> None:
    suite = read_suite(write_suite(parameters=["released"]), ["device=cpu"])
    path = run_suite(suite, silent, ["jointssl", "evaluate", "mine.yaml"])
    content = json.loads(path.read_text())
    assert [(one["name"], one["fault"]) for one in content["evaluations"]] == [("toy", None), ("short", None)]
    assert content["command"] == "jointssl evaluate mine.yaml"
    for one in content["evaluations"]:
        assert read_results(path.parent / one["results"]).name == one["name"]
    evaluations, (record,) = read_evaluations([tmp_path / "out"])
    assert sorted(evaluation.title for evaluation in evaluations) == ["mine: short", "mine: toy"]
    assert record.parameters == {"released": 31162884}


def test_every_plan_is_checked_before_any_is_run(write_suite: Write, tmp_path: Path) -> None:
    evaluations = [
        {"plan": "../toy.yaml", "starts": ["scratch"]},
        {"plan": "../toy.yaml", "set": {"name": "b", "options.epoch": 1}},
        {"plan": "../toy.yaml", "set": {"name": "c", "manifest": str(tmp_path / "no.csv")}},
        {"plan": "../toy.yaml", "set": {"name": "d", "fractions": [0.1, 1.0]}},
        {"plan": "../toy.yaml", "starts": ["lost"], "set": {"name": "e"}},
    ]
    suite = read_suite(write_suite(evaluations=evaluations, weights={"scratch": "scratch", "lost": "lost.pth"}))
    with pytest.raises(SuiteError) as caught:
        run_suite(suite, silent)
    for words in ("b: task brightness cannot be run", "did you mean epochs?", "c: ", "no.csv", "e: weights lost: "):
        assert words in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_labels_that_a_fraction_lacks_are_found_before_anything_is_run(
    write_suite: Write, make_manifest: Callable[..., Path], tmp_path: Path
) -> None:
    make_manifest(train=1)
    with pytest.raises(SuiteError, match=r"toy: 1 training rows have only the classes \[0\]"):
        run_suite(read_suite(write_suite()), silent)
    assert not (tmp_path / "out").exists()


def test_one_that_fails_does_not_keep_the_next_from_running(write_suite: Write, tmp_path: Path) -> None:
    evaluations = [
        {"plan": "../toy.yaml", "set": {"name": "bad", "options.learning_rate": float("inf")}},
        {"plan": "../toy.yaml"},
    ]
    suite = read_suite(write_suite(evaluations=evaluations), ["device=cpu"])
    with pytest.raises(SuiteError, match=r"suite mine: 1 of 2 evaluations failed:\n  - bad: the loss of epoch \d is"):
        run_suite(suite, silent)
    assert read_results(tmp_path / "out" / "toy" / "results.json").name == "toy"
    content = json.loads((tmp_path / "out" / "suite.json").read_text())
    assert "loss of epoch" in content["evaluations"][0]["fault"]


def test_a_file_of_weights_is_read_by_every_plan(write_suite: Write, tmp_path: Path) -> None:
    torch.save(torchvision.models.resnet50(weights=None).state_dict(), tmp_path / "net.pth")
    suite = read_suite(write_suite(), [f"weights=[scratch,again={tmp_path / 'net.pth'}]", "device=cpu"])
    run_suite(suite, silent)
    assert read_results(tmp_path / "out" / "short" / "results.json").weights["again"]["sha256"]


@pytest.mark.parametrize(
    "name", ["table3", "table4", "table5", "table6", "table7", *(f"figure{n}" for n in (4, 5, 7, 8))]
)
def test_the_papers_suites_name_plans_beside_them_and_starts_of_the_report(root: Path, name: str) -> None:
    path = root / "configs" / "evaluation" / "suites" / f"{name}.yaml"
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert content["name"] == name
    assert content["out"] == f"runs/evaluation/{name}"
    missing = [step["plan"] for step in content.get("evaluations", []) if not (path.parent / step["plan"]).is_file()]
    assert not missing
    suite = read_suite(path)
    assert suite.left_out == ()
    for plan in suite.plans:
        assert plan.out == Path(f"runs/evaluation/{name}") / plan.name
