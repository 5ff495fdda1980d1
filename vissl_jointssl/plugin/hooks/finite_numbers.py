"""No training step is taken with a number that is not finite: it is skipped on all ranks, or the run stops on all."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, NoReturn

import torch
from classy_vision.generic.distributed_util import is_primary
from classy_vision.hooks import ClassyHook
from classy_vision.tasks.classification_task import AmpType
from torch import Tensor, nn

from vissl_jointssl.checkpoints import CheckpointError, newest_checkpoint
from vissl_jointssl.objectives.over_ranks import over_ranks, rank_and_world
from vissl_jointssl.plugin.capture import Capture, capture_file, config_text, write_capture
from vissl_jointssl.plugin.finite_checks import checked_input, not_finite, on_all_ranks, tensors_of
from vissl_jointssl.plugin.hooks.progress import ProgressHook
from vissl_jointssl.plugin.hooks.stop_on_request import StopOnRequestHook
from vissl_jointssl.plugin.micro_batches import RandomState, random_state
from vissl_jointssl.plugin.number_faults import KINDS, Fault, batch_indices, first_fault, suspects, words
from vissl_jointssl.plugin.number_limits import WINDOW, NumberOptions, beyond_limits, within_window
from vissl_jointssl.plugin.sample_names import sample_names, shown
from vissl_jointssl.plugin.skipping import StepSkipped
from vissl_jointssl.plugin.step_state import StepState


class FiniteNumbersHook(ClassyHook):
    """Looks at input, output, loss and gradients of every training step before the optimizer sees any of it.

    The looks are flags on the device; ranks exchange them once, after the backward pass, and that is the one time that
    the step waits for the device. If any is raised on any rank, buffers of model and loss are put back as they were
    and the step ends on every rank: weights, optimizer and gradient scaler have not been touched. Beyond the limits,
    every rank writes a capture instead and raises the same error.

    Under PyTorch's mixed precision, a gradient that is infinite while input, output and loss are finite comes from the
    loss' scale, and the scaler answers it: it skips the update and halves the scale. Only at a scale of 1 or less,
    where there is nothing left to halve, is it a fault.

    Must stand before hooks that change gradients, and needs a training step made `skippable`.

    Args:
        options: The limits.
        folder: The checkpoint folder, for captures.
        progress: The run's progress file.
        stop: Told what ranks exchange about requests to stop, which travels along.
    """

    on_phase_start = ClassyHook._noop
    on_loss_and_meter = ClassyHook._noop
    on_update = ClassyHook._noop
    on_step = ClassyHook._noop
    on_phase_end = ClassyHook._noop

    def __init__(
        self, options: NumberOptions, folder: Path, progress: ProgressHook, stop: StopOnRequestHook | None = None
    ) -> None:
        super().__init__()
        self.state.skipped = []  # iterations, in the checkpoint: a resumed run goes on counting
        self._options = options
        self._folder = folder
        self._progress = progress
        self._stop_on_request = stop or StopOnRequestHook()
        self._in_a_row = 0
        self._before: StepState | None = None  # None outside of a training step
        self._flags: dict[str, Tensor] = {}
        self._random: RandomState | None = None
        self._handles: list[Any] = []

    def on_start(self, task: Any) -> None:
        """Watch what goes into the model and comes out of the loss: VISSL's events show neither."""
        if task.checkpoint is not None:
            hooks = task.checkpoint["classy_state_dict"]["hooks"]
            self.state.skipped = list(hooks.get(type(self).__name__, {}).get("skipped", []))
        self._handles = [
            task.base_model.register_forward_pre_hook(self._see_input),
            task.loss.register_forward_hook(self._see_loss),
        ]

    def before_step(self, task: Any) -> None:
        """Keep what the step will change; see `plugin.skipping`."""
        self._before = StepState(task.base_model, task.loss) if task.train else None
        self._flags, self._random = {}, None

    def on_forward(self, task: Any) -> None:
        """Look at the output."""
        if self._before is not None:
            self._raise_flag("output", not_finite(tensors_of(task.last_batch.model_output)))

    def on_backward(self, task: Any) -> None:
        """Look at the gradients, and decide on all ranks together.

        Raises:
            StepSkipped: If a number is not finite on any rank.
            FloatingPointError: If so, and it is one time too many.
        """
        before, self._before = self._before, None
        if before is None:
            return
        gradients = [weight.grad for weight in task.base_model.parameters() if weight.grad is not None]
        self._raise_flag("gradient", not_finite(gradients))
        no = torch.zeros((), dtype=torch.bool, device=task.device)
        flags = [*(self._flags.get(kind, no) for kind in KINDS), self._stop_on_request.flag(task.device)]
        table = on_all_ranks(flags, task.device)
        self._stop_on_request.tell(any(row[-1] for row in table))
        fault = first_fault(table)
        if fault is None:
            self._in_a_row = 0
        elif not (fault.kind == "gradient" and _is_from_scale(task)):
            before.restore()
            self._answer(task, fault)

    def on_end(self, task: Any) -> None:
        """Watch no longer."""
        for handle in self._handles:
            handle.remove()

    def _see_input(self, model: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if self._before is None:
            return None
        self._random = self._random or random_state()
        batch, flag = checked_input(arguments[0])
        self._raise_flag("input", flag)
        return (batch, *arguments[1:])

    def _see_loss(self, loss: nn.Module, arguments: tuple[Any, ...], value: Any) -> None:
        if self._before is not None:
            self._raise_flag("loss", not_finite(tensors_of(value)))

    def _raise_flag(self, kind: str, flag: Tensor) -> None:
        self._flags[kind] = flag | self._flags[kind] if kind in self._flags else flag  # a batch may come in parts

    def _answer(self, task: Any, fault: Fault) -> NoReturn:
        """End the step or the run: all ranks come here together, and say the same."""
        at_fault = suspects(task, fault)
        names = sample_names(task.datasets["train"], [index for _, index in at_fault])
        listed = [f"{name} [index {index}, rank {of}]" for name, (of, index) in zip(names, at_fault, strict=True)]
        skipped = within_window(self.state.skipped, task.iteration)
        self._in_a_row += 1
        said = f"iteration {task.iteration}: {words(task, fault)}, with {shown(listed)}"
        reason = beyond_limits(self._in_a_row, len(skipped) + 1, self._options)
        if reason is not None:
            own = [name for name, (of, _) in zip(names, at_fault, strict=True) if of == rank_and_world()[0]]
            self._stop(task, fault, f"{said}; and {reason}", own)
        self.state.skipped = [*skipped, task.iteration]
        said += (
            f"; the step is skipped on all ranks, {self._in_a_row} in a row, {len(skipped) + 1} of the last {WINDOW}"
        )
        if is_primary():
            logging.warning(said)
        if len(self.state.skipped) == 1:  # the rest is in the log
            self._progress.warn(said)
        raise StepSkipped(said)

    def _stop(self, task: Any, fault: Fault, said: str, own: list[str]) -> NoReturn:
        """Raise on all ranks once all captures are written, or cannot be."""
        path, failure = capture_file(self._folder, rank_and_world()[0]), ""
        try:
            write_capture(self._capture(task, fault, said, own), path)
        except (OSError, RuntimeError, ValueError) as error:
            failure = f"; {path} could not be written ({error})"
        # The launcher ends all ranks when the first one fails: nobody raises before everybody has written.
        over_ranks(torch.zeros(1, device=task.device)).tolist()
        captures = capture_file(self._folder, fault.ranks[0])
        message = (
            f"{said}. {_last_good(self._folder)}. `jointssl replay {captures}` finds the place; then mend or leave out "
            "these samples, lower the learning rate (OPTIMIZER.param_schedulers.lr) or turn mixed precision off "
            f"(MODEL.AMP_PARAMS.USE_AMP), and the same command resumes{failure}"
        )
        logging.error(message)
        raise FloatingPointError(message)

    def _capture(self, task: Any, fault: Fault, said: str, own: list[str]) -> Capture:
        sample = task.last_batch.sample
        assert self._random is not None  # the model has been called
        return Capture(
            rank=rank_and_world()[0],
            faulty_ranks=fault.ranks,
            iteration=task.iteration,
            said=said,
            samples=own,
            indices=batch_indices(sample),
            batch=sample["input"],
            target=sample["target"],
            model=dict(task.base_model.state_dict()),
            loss=dict(task.loss.state_dict()),
            random=self._random,
            scale=task.amp_grad_scaler.get_scale() if task.amp_type == AmpType.PYTORCH else None,
            config=config_text(task.config),
        )


def _is_from_scale(task: Any) -> bool:
    return task.amp_type == AmpType.PYTORCH and task.amp_grad_scaler.get_scale() > 1


def _last_good(folder: Path) -> str:
    try:
        found = newest_checkpoint(folder)
    except (CheckpointError, OSError) as error:
        return f"No checkpoint in {folder} could be judged ({error})"
    return (
        f"No checkpoint has been written to {folder} yet" if found is None else f"The last good checkpoint is {found}"
    )
