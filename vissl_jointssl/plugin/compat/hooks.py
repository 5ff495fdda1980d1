"""Stock hooks that fail, or mislead, when they are needed."""

from __future__ import annotations

from pathlib import Path

import torch
from classy_vision.hooks import ClassyHook
from classy_vision.tasks.classification_task import AmpType
from torch import Tensor
from vissl.hooks.grad_clip_hooks import GradClipHook
from vissl.hooks.log_hooks import LogLossMetricsCheckpointHook
from vissl.hooks.state_update_hooks import CheckNanModelOutputHook
from vissl.trainer.train_task import SelfSupervisionTask
from vissl.utils.env import get_machine_local_and_dist_rank

from vissl_jointssl.checkpoints import save_atomically


def replace_gradient_clipping() -> None:
    """``vissl/hooks/grad_clip_hooks.py:37`` clips gradients that PyTorch's AMP has scaled (fixed later upstream).

    At the usual scale of 65536 nearly every step would be cut to a 65536th of the wanted norm.
    """
    GradClipHook.on_backward = _clip_gradients


def _clip_gradients(self: GradClipHook, task: SelfSupervisionTask) -> None:
    """Undo the scaling, then clip; the scaler knows that it need not undo it again."""
    if task.amp_type == AmpType.PYTORCH:
        task.amp_grad_scaler.unscale_(task.optimizer)
    torch.nn.utils.clip_grad_norm_(task.model.parameters(), max_norm=self.max_norm, norm_type=self.norm_type)


def replace_nan_output_check() -> None:
    """``vissl/hooks/state_update_hooks.py:153`` calls a method that its class does not have (fixed later upstream).

    And ``vissl/hooks/log_hooks.py:321`` writes a checkpoint when an output is not finite (by design): the broken batch
    is in BatchNorm's statistics by then, and a resume would take that file for good. No checkpoint is written there any
    more; the input and output, for whoever looks for the cause, still are.
    """
    LogLossMetricsCheckpointHook.on_forward = ClassyHook._noop
    CheckNanModelOutputHook.on_forward = _check_model_output


def _check_model_output(self: CheckNanModelOutputHook, task: SelfSupervisionTask) -> None:
    """Save the batch and stop at the first output that is not finite.

    Stages 1 to 3 have a hook of ours instead, which can skip a step (``plugin/hooks/finite_numbers.py``).

    Raises:
        FloatingPointError: If the model's output holds NaN or infinity.
    """
    output = task.last_batch.model_output
    tensors: list[Tensor] = output if isinstance(output, list) else [output]
    broken = [index for index, tensor in enumerate(tensors) if not torch.isfinite(tensor).all()]
    if broken:
        _, rank = get_machine_local_and_dist_rank()
        folder = Path(task.checkpoint_folder)
        save_atomically(output, folder / f"rank{rank}_model_output.pth")
        save_atomically(task.last_batch.sample, folder / f"rank{rank}_input_sample.pth")
        raise FloatingPointError(
            f"the model's output {broken} is NaN or infinite at iteration {task.iteration} on rank {rank}; input and "
            f"output are in {task.checkpoint_folder} (rank{rank}_*.pth): look there, or lower the learning rate"
        )
