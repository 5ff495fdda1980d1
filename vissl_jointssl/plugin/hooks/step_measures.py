"""Measures a few steps of a run inside the engine, then lets the run end: what `jointssl train --plan` goes by."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import torch
from classy_vision.generic.distributed_util import is_primary
from classy_vision.hooks import ClassyHook
from torch import Tensor, distributed

from vissl_jointssl.atomic_file import write_at_once
from vissl_jointssl.objectives.over_ranks import over_ranks, rank_and_world
from vissl_jointssl.plugin.loader_seconds import first_batch_seconds, sample_seconds
from vissl_jointssl.plugin.planned_views import MadeBatches
from vissl_jointssl.plugin.step_clock import WatchedIterator, device_time
from vissl_jointssl.process_memory import peak_bytes, resident_bytes


class StepMeasuresHook(ClassyHook):
    """Measures steps, memory, loader and checkpoint, writes them into one file, and ends the run in good order.

    Must be the first hook: what the others do at a start or an end counts. The run ends as it would after its last
    step, so that all ranks do, and VISSL writes a checkpoint that can be weighed.

    The file, in seconds and bytes:

    * `facts`; `ranks`; `device`;
    * `steps` and `waits` (the part of a step that waited for data), in order, those for warming up included;
    * `batch_bytes` as workers send it and `batch_images` (2D slices or crops) of a rank's batch;
    * `sample`: to load one alone, with one thread;
    * `start`: what hooks do before the first epoch, such as to fill a memory; `epoch_hooks`, `first_batch`: each epoch;
    * `checkpoint`: to write one; `checkpoint_bytes`;
    * `peak` and `static` (between two steps) memory of the rank that needs most; `room`: what it can have of its GPU.
      None where this system does not tell.

    Before the first step the file holds `facts` and `ranks` alone: so much is known of a run that finds no memory.

    Args:
        out: The file.
        steps: To take, those for warming up included; fewer if the run is shorter.
        facts: About the run, for whoever reads the file.
    """

    on_forward = ClassyHook._noop
    on_loss_and_meter = ClassyHook._noop
    on_backward = ClassyHook._noop
    on_update = ClassyHook._noop

    def __init__(self, out: Path, steps: int, facts: Mapping[str, Any]) -> None:
        super().__init__()
        self._out = out
        self._steps = steps
        self._found: dict[str, Any] = {"facts": dict(facts), "steps": [], "waits": []}
        self._weights: int | None = None
        self._begin = self._waited = 0.0
        self._is_first = True
        self._planned: tuple[float, int] | None = None  # seconds and bytes of a batch whose views are made here

    def on_start(self, task: Any) -> None:
        """Say what is known before anything can go wrong."""
        facts = self._found["facts"]
        if facts["samples"] is None:  # a data source of VISSL's own
            facts["samples"] = task.num_phase_samples("train")
        self._write({"facts": facts})
        self._weights = resident_bytes()
        self._begin = device_time(task.device)

    def on_phase_start(self, task: Any) -> None:
        """An epoch begins; with its first batch its first step does."""
        now = device_time(task.device)
        self._found.setdefault("start", now - self._begin)
        self._begin, self._is_first = now, True
        batches = task.data_iterator
        if isinstance(batches, MadeBatches):  # to make views is no wait for data
            batches._planned = WatchedIterator(batches._planned, self._see_planned)
        task.data_iterator = WatchedIterator(batches, self._see_batch)

    def on_step(self, task: Any) -> None:
        """Note the step, and let the run end if it was the last to take."""
        now = device_time(task.device)
        if task.train:
            self._found["steps"].append(now - self._begin)
            self._found["waits"].append(self._waited)
        self._begin, self._waited = now, 0.0
        if len(self._found["steps"]) == self._steps:
            del task.phases[task.phase_idx + 1 :]
            task.data_iterator.end()
            task.config["CHECKPOINT"]["CHECKPOINT_FREQUENCY"] = 1

    def on_phase_end(self, task: Any) -> None:
        """The others' part of it begins now: a checkpoint is written."""
        self._begin = device_time(task.device)

    def on_end(self, task: Any) -> None:
        """Measure what needs no step, and write everything."""
        found = self._found
        found["checkpoint"] = device_time(task.device) - self._begin
        found["device"] = torch.cuda.get_device_name() if task.device.type == "cuda" else "CPU"
        found |= self._memory(task)
        if is_primary():
            sizes = [path.stat().st_size for path in Path(task.checkpoint_folder).glob("model_*.torch")]
            found["checkpoint_bytes"] = max(sizes)
            found["first_batch"] = first_batch_seconds(task.dataloaders["train"])
            found["sample"] = sample_seconds(task.datasets["train"])
        self._write(found)

    def _see_planned(self, batch: Any, seconds: float) -> None:
        self._planned = seconds, _bytes_of(batch)

    def _see_batch(self, batch: Any, seconds: float) -> None:
        waited, size = self._planned or (seconds, _bytes_of(batch["data"]))
        if not self._is_first:
            self._waited = waited
            return
        now = time.perf_counter()
        hooks = now - seconds - self._begin
        self._found["epoch_hooks"] = min(hooks, self._found.get("epoch_hooks", hooks))
        self._found["batch_bytes"] = size
        self._found["batch_images"] = sum(tensor.shape[:-3].numel() for tensor in _tensors(batch["data"]))
        self._begin, self._is_first = now, False

    def _memory(self, task: Any) -> dict[str, int | None]:
        """Of the rank that needs most; static is what stays between two steps."""
        if task.device.type == "cuda":
            static, peak = torch.cuda.memory_allocated(), torch.cuda.max_memory_reserved()
            room = torch.cuda.mem_get_info()[0] + torch.cuda.memory_reserved()
        else:
            if self._weights is None:
                return {"peak": None, "static": None, "room": None}
            static, peak, room = self._weights + _trained_bytes(task), peak_bytes(), 0
        most = over_ranks(torch.tensor([static, peak, -room], device=task.device), distributed.ReduceOp.MAX).tolist()
        return {"peak": most[1], "static": min(most[:2]), "room": -most[2] or None}

    def _write(self, found: Mapping[str, Any]) -> None:
        if is_primary():
            found = {**found, "ranks": rank_and_world()[1]}
            write_at_once(json.dumps(found, allow_nan=False).encode(), self._out)


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        yield from _tensors(list(value.values()))
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _tensors(one)
    elif is_dataclass(value):
        yield from _tensors([getattr(value, field.name) for field in fields(value)])


def _bytes_of(value: Any) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in _tensors(value))


def _trained_bytes(task: Any) -> int:
    """Of gradients and of what the optimizer remembers."""
    weights = [weight for group in task.optimizer.optimizer.param_groups for weight in group["params"]]
    return _bytes_of([[weight.grad for weight in weights], list(task.optimizer.optimizer.state.values())])
