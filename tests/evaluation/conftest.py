from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import ClassVar

import numpy as np
import pytest
import torch
import yaml

from vissl_jointssl.evaluation import tasks
from vissl_jointssl.evaluation.task import Job, Outcome
from vissl_jointssl.evaluation.training_loop import fit
from vissl_jointssl.manifest import Entry, write_manifest


@dataclass(frozen=True)
class Brightness:
    """A toy task: is a volume bright? One weight and one bias on its mean."""

    main_metric: ClassVar[str] = "correct"
    kinds: ClassVar[tuple[str, ...]] = ("volume",)
    epochs: int = 3
    learning_rate: float = 0.5

    def is_labelled(self, entry: Entry) -> bool:
        return entry.label is not None

    def faults(self, job: Job) -> list[str]:
        classes = {entry.label for entry in job.train}
        return [] if classes == {0, 1} else [f"{len(job.train)} training rows have only the classes {sorted(classes)}"]

    def run(self, job: Job) -> Outcome:
        model = torch.nn.Linear(1, 1)
        if job.initialisation.slice_encoder is not None:
            torch.nn.init.constant_(model.weight, 3.0)
        optimizer = torch.optim.SGD(model.parameters(), lr=self.learning_rate)

        def values(entries: Sequence[Entry]) -> torch.Tensor:
            means = [np.asarray(job.manifest.open(entry)).mean() / 65535 for entry in entries]
            return torch.tensor(means, dtype=torch.float32).unsqueeze(1)

        def run_epoch(epoch: int) -> float:
            order = torch.randperm(len(job.train))
            labels = torch.tensor([[float(entry.label or 0)] for entry in job.train])
            loss = torch.nn.functional.binary_cross_entropy_with_logits(
                model(values(job.train)[order]) + 0.1 * torch.randn(len(order), 1), labels[order]
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return float(loss.detach())

        losses = fit(
            run_epoch, self.epochs, {"model": model, "optimizer": optimizer}, job.folder, job.seed, job.progress
        )
        with torch.no_grad():
            right = (model(values(job.test)) > 0).squeeze(1).tolist()
        cases = {e.id: {"correct": float(r == bool(e.label))} for e, r in zip(job.test, right, strict=True)}
        return Outcome({"correct": float(np.mean([c["correct"] for c in cases.values()]))}, cases, losses)


@pytest.fixture
def make_manifest(tmp_path: Path) -> Callable[..., Path]:
    """Bright and dark volumes of several patients: `(train, test)` rows."""

    def make(train: int = 8, test: int = 6, seed: int = 0) -> Path:
        rng = np.random.default_rng(seed)
        folder = tmp_path / "data"
        folder.mkdir(exist_ok=True)
        entries = []
        for number in range(train + test):
            label = number % 2
            array = rng.integers(20000 + 20000 * label, 30000 + 20000 * label, (2, 4, 4)).astype(np.uint16)
            np.save(folder / f"{number}.npy", array)
            entries.append(
                Entry(
                    id=f"case{number:02d}",
                    kind="volume",
                    path=f"{number}.npy",
                    label_path=None,
                    label=label,
                    split="train" if number < train else "test",
                    patient=f"patient{number // 2}" if number < train else f"tested{number}",
                    modality="CT",
                    spacing=(1.0, 1.0, 1.0),
                    shape=(2, 4, 4),
                    dtype="uint16",
                    sha256=hashlib.sha256((folder / f"{number}.npy").read_bytes()).hexdigest(),
                )
            )
        write_manifest(folder / "manifest.csv", entries)
        return folder / "manifest.csv"

    return make


@pytest.fixture
def toy_task(monkeypatch: pytest.MonkeyPatch) -> type[Brightness]:
    """`task: brightness` in a YAML."""
    monkeypatch.setattr(tasks, "TASKS", {**tasks.TASKS, "brightness": ("toy_task_module", "Brightness")})
    module = ModuleType("toy_task_module")
    module.__dict__["Brightness"] = Brightness
    monkeypatch.setitem(sys.modules, "toy_task_module", module)
    return Brightness


@pytest.fixture
def write_plan(tmp_path: Path) -> Callable[..., Path]:
    def write(**content: object) -> Path:
        path = tmp_path / "plan.yaml"
        path.write_text(yaml.safe_dump(content))
        return path

    return write
