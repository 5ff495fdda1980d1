"""`accumulated_train_step`: VISSL's training step with the batch in parts (`config.JOINT_SSL.MICRO_BATCHES`).

To the hooks, the loss, the meters and the optimizer it is one step of the whole batch, in the order of
vissl/trainer/train_steps/standard_train_step.py:92. What it costs is a second forward pass. `plugin.config` sets it as
`TRAINER.TRAIN_STEP_NAME`; apex and manual gradient reduction, which VISSL's step also knows, are refused or replaced
before.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from classy_vision.generic.distributed_util import all_reduce_mean
from classy_vision.tasks.classification_task import AmpType
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from vissl.hooks import SSLClassyHookFunctions
from vissl.trainer.train_steps import register_train_step
from vissl.trainer.train_steps.standard_train_step import (
    LastBatchInfo,
    construct_sample_for_model,
    standard_train_step,
)
from vissl.utils.perf_stats import PerfTimer
from vissl.utils.profiler import record_function

from vissl_jointssl.plugin.micro_batches import (
    ModelInput,
    RandomState,
    as_leaves,
    backward_of_part,
    buffers_kept,
    cut_input,
    cut_rows,
    gradient_of_outputs,
    join_rows,
    number_of_views,
    random_state,
    replayed,
)


@register_train_step("accumulated_train_step")
def accumulated_train_step(task: Any) -> Any:
    """One step of the optimizer over one batch of the loader, `MICRO_BATCHES` parts of it at a time.

    A test phase needs no gradient, so it is VISSL's own step.
    """
    if not task.train:
        return standard_train_step(task)
    task.last_batch = LastBatchInfo()
    timer = PerfTimer("train_step_total", task.perf_stats)
    timer.start()
    with PerfTimer("read_sample", task.perf_stats):
        sample = next(task.data_iterator)
    sample = construct_sample_for_model(sample, task)
    views = number_of_views(sample["input"])
    parts = cut_input(sample["input"], task.config.JOINT_SSL.MICRO_BATCHES)

    with PerfTimer("forward", task.perf_stats), record_function("forward"):
        outputs, states = _first_pass(task, parts, views)
    task.last_batch.sample = sample
    task.last_batch.model_output = outputs[0] if len(outputs) == 1 else outputs
    task.last_batch.target = sample["target"]
    task.run_hooks(SSLClassyHookFunctions.on_forward.name)

    with _autocast(task), PerfTimer("loss_compute", task.perf_stats), record_function("loss_compute"):
        loss = task.loss(task.last_batch.model_output, sample["target"])
    with PerfTimer("loss_all_reduce", task.perf_stats):
        task.last_batch.loss = all_reduce_mean(loss.detach().clone())
    task.losses.append(task.last_batch.loss.cpu().item() * sample["target"].size(0))
    _update_meters(task, outputs)
    task.run_hooks(SSLClassyHookFunctions.on_loss_and_meter.name)

    with PerfTimer("backward", task.perf_stats), record_function("backward"):
        task.optimizer.zero_grad()
        scaled = task.amp_grad_scaler.scale(loss) if task.amp_type == AmpType.PYTORCH else loss
        _second_pass(task, parts, states, gradient_of_outputs(scaled, outputs), views)
    task.run_hooks(SSLClassyHookFunctions.on_backward.name)

    with PerfTimer("optimizer_step", task.perf_stats), record_function("optimizer_step"):
        _step(task)
    task.run_hooks(SSLClassyHookFunctions.on_update.name)
    task.num_updates += task.get_global_batchsize()
    timer.stop()
    timer.record()
    return task


def _first_pass(task: Any, parts: list[ModelInput], views: int) -> tuple[list[Tensor], list[RandomState]]:
    """Outputs of the whole batch as leaves, and the random state that each part began with."""
    outputs, states = [], []
    # Not through DDP: it would take a forward pass without backward for one of its own and skip the next broadcast.
    with torch.no_grad(), buffers_kept(task.base_model):
        for part in parts:
            states.append(random_state())
            outputs.append(_forward(task, task.base_model, part))
    return as_leaves([join_rows(each, views) for each in zip(*outputs, strict=True)]), states


def _second_pass(
    task: Any, parts: list[ModelInput], states: list[RandomState], gradients: list[Tensor | None], views: int
) -> None:
    """Forward once more with gradient, backward with each part's share; DDP adds up over ranks in the last part."""
    by_output = [
        [None] * len(parts) if gradient is None else cut_rows(gradient, views, len(parts)) for gradient in gradients
    ]
    for index, part in enumerate(parts):
        is_last = index == len(parts) - 1
        alone = isinstance(task.model, DistributedDataParallel) and not is_last
        with replayed(states[index]), task.model.no_sync() if alone else nullcontext():
            outputs = _forward(task, task.model, part)
            backward_of_part(outputs, [share[index] for share in by_output])


def _forward(task: Any, model: nn.Module, part: ModelInput) -> list[Tensor]:
    # Forward only: PyTorch wants backward passes outside of autocast, and parts of the second pass take turns.
    with _autocast(task):
        output = model(part)
    if len(output) == 1:
        output = output[0]
    return [output] if isinstance(output, Tensor) else list(output)


def _autocast(task: Any) -> torch.autocast:
    return torch.autocast(task.device.type, enabled=task.amp_type == AmpType.PYTORCH)


def _update_meters(task: Any, outputs: list[Tensor]) -> None:
    if not task.meters or not task.config["METERS"]["enable_training_meter"]:
        return
    with PerfTimer("meters_update", task.perf_stats):
        on_cpu = [output.detach().cpu() for output in outputs]
        for meter in task.meters:
            meter.update(on_cpu[0] if len(on_cpu) == 1 else on_cpu, task.last_batch.target.detach().cpu())


def _step(task: Any) -> None:
    if task.where >= 1.0:
        raise RuntimeError(
            f"the optimizer is asked for a step at {task.where:.3f} of the training, which is over; a run resumed "
            "within an epoch needs config.DATA.TRAIN.USE_STATEFUL_DISTRIBUTED_SAMPLER=True"
        )
    if task.amp_type == AmpType.PYTORCH:
        task.amp_grad_scaler.step(task.optimizer, where=task.where)
        task.amp_grad_scaler.update()
    else:
        task.optimizer.step(where=task.where)
