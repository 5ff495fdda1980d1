from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from vissl_jointssl.evaluation.plan import PlanError, read_plan

CONTENT = {"name": "n", "task": "t", "manifest": "m.csv", "weights": ["scratch"]}


def test_the_command_line_changes_the_file(write_plan: Callable[..., Path]) -> None:
    path = write_plan(**CONTENT, options={"epochs": 5, "size": 3}, seeds=2)
    plan = read_plan(path)
    assert plan.weights == {"scratch": None}
    assert plan.seeds == (0, 1)
    assert plan.out == Path("runs/evaluation/n")
    changes = ["weights=[scratch,a/net.pth,best=b]", "seeds=[4]", "fractions=[1.0,0.2]", "options.epochs=1", "out=o"]
    plan = read_plan(path, changes)
    assert plan.weights == {"scratch": None, "net": Path("a/net.pth"), "best": Path("b")}
    assert plan.seeds == (4,)
    assert plan.fractions == (0.2, 1.0)
    assert plan.options == {"epochs": 1, "size": 3}
    assert plan.out == Path("o")
    assert read_plan(path, ["weights=x.pth"]).weights == {"x": Path("x.pth")}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["sed=1"], r"'sed=1' changes nothing; did you mean seeds\?"),
        (["seeds=0"], "seeds is 0, expected how many"),
        (["seeds=[1,1]"], "expected how many, or a list of different numbers"),
        (["fractions=[0]"], r"fractions is \[0\], expected shares above 0"),
        (["weights=[a/net.pth,b/net.pth]"], "two of weights are called 'net'; name them"),
        (["device=tpu"], "device is 'tpu', expected one of auto, cpu, gpu"),
        (["manifest="], "'manifest' is missing; give it as manifest="),
    ],
)
def test_a_faulty_change_is_named(write_plan: Callable[..., Path], changes: list[str], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        read_plan(write_plan(**CONTENT), changes)


def test_every_fault_is_named_at_once(write_plan: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(PlanError) as error:
        read_plan(write_plan(task="t", wieghts=["scratch"], seeds="x"))
    for words in ("'wieghts' is read by nothing; did you mean weights?", "'name' is missing", "seeds is 'x'"):
        assert words in str(error.value)
    with pytest.raises(PlanError, match="cannot be read as YAML"):
        read_plan(tmp_path / "nowhere.yaml")
