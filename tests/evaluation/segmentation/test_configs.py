from __future__ import annotations

from pathlib import Path

import pytest

from vissl_jointssl.evaluation.plan import read_plan
from vissl_jointssl.evaluation.tasks import build_task

CONFIGS = Path(__file__).parents[3] / "configs" / "evaluation"
# name: (task, paper's epochs with its own weights, targets)
PAPER = {
    "brats2018": ("segmentation_3d", 50, (1,)),
    "mmwhs_ct": ("segmentation_3d", 25, (3,)),
    "mmwhs_mr": ("segmentation_3d", 15, (3,)),
    "jsrt": ("segmentation_2d", 50, None),
}


@pytest.mark.parametrize("name", PAPER)
def test_the_recipes_are_the_papers(name: str) -> None:
    path = CONFIGS / f"{name}.yaml"
    plan = read_plan(path, ["weights=[scratch,stage3=runs/mine/stage3]", "seeds=5"])
    task = build_task(plan.task, plan.options)
    facts = (plan.name, plan.task, vars(task)["epochs"], vars(task)["labels"], vars(task)["learning_rate"])
    assert facts == (name, *PAPER[name], 0.1)
    assert plan.seeds == (0, 1, 2, 3, 4)
    header = path.read_text().split("name:")[0]
    for word in ("Needs", "Leaves", f"jointssl evaluate configs/evaluation/{name}.yaml", "Cost"):
        assert word in header
