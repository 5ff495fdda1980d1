from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vissl_jointssl.evaluation import statistics
from vissl_jointssl.evaluation.results import Results, RunResult, summarise, write_results
from vissl_jointssl.evaluation.statistics import compare_runs


@pytest.fixture
def make_evaluation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """A `results.json` as `jointssl evaluate` writes it, with made-up numbers; returns the file."""
    monkeypatch.setattr(statistics, "_RESAMPLES", 200)

    def make(
        name: str = "mmwhs_ct",
        task: str = "segmentation_3d",
        metric: str = "iou",
        starts: Sequence[str] = ("scratch", "stage3_swav"),
        fractions: Sequence[float] = (1.0,),
        seeds: int = 2,
        cases: int = 5,
        classes: Sequence[str] = (),
        undefined: bool = False,
        folder: str = "runs",
        **facts: Any,
    ) -> Path:
        rng = np.random.default_rng(0)
        runs = []
        for fraction in fractions:
            for seed in range(seeds):
                for place, start in enumerate(starts):
                    values = 0.5 + 0.1 * place + 0.02 * fraction + 0.05 * rng.random(cases)
                    scores = {f"case{n}": {metric: float(v), "hd95": float(9 - v)} for n, v in enumerate(values)}
                    metrics = {metric: float(values.mean()), "hd95": 9 - float(values.mean())}
                    metrics |= {f"{metric}_{one}": float(values[0]) for one in classes}
                    if undefined and start == starts[-1]:
                        metrics["hd95"] = scores["case0"]["hd95"] = math.nan
                    losses = [1.0 / epoch for epoch in range(1, 4)]
                    runs.append(RunResult(start, fraction, seed, metrics, scores, losses, 8, 1.0))
        results = Results(
            name=name,
            task=task,
            main_metric=metric,
            options=facts.get("options", {"epochs": 3}),
            weights={s: {"path": f"{s}.torch", "sha256": "ab" * 32, "account": "all keys"} for s in starts},
            data={"manifest": facts.get("manifest", "cd" * 32), "train": 8, "val": 0, "test": cases},
            made_with={"commit": "1234abc", "command": "jointssl evaluate mine.yaml seeds=2"},
            runs=runs,
            summary=summarise(runs),
            comparisons=[asdict(comparison) for comparison in compare_runs(runs, list(starts))],
        )
        path = tmp_path / folder / name / "results.json"
        write_results(results, path)
        return path

    return make


@pytest.fixture
def make_suite(tmp_path: Path) -> Callable[..., Path]:
    """A `suite.json` in a folder."""

    def make(name: str, folder: str, **facts: Any) -> Path:
        content = {"version": 1, "name": name, "command": "", "evaluations": [], "left_out": [], "parameters": {}}
        path = tmp_path / folder / "suite.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content | facts))
        return path

    return make
