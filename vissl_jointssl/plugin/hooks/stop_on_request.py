"""A run that is asked to stop ends after a step, on all ranks together, with a checkpoint to go on from."""

from __future__ import annotations

import logging
from typing import Any

import torch
from classy_vision.generic.distributed_util import is_primary
from classy_vision.hooks import ClassyHook
from torch import Tensor, distributed

from vissl_jointssl.objectives.over_ranks import over_ranks
from vissl_jointssl.plugin.stop_signals import Stopped, asked_to_stop, name_of


class StopOnRequestHook(ClassyHook):
    """Raises `Stopped` on all ranks after the same step, once any of them has been asked to stop.

    Ranks tell each other once a step. In the stages that costs nothing: the flag travels with those of
    `FiniteNumbersHook`. Elsewhere it is an all-reduce of one number.

    This hook writes no checkpoint. It makes the step one after which a checkpoint is due, so that every hook does what
    it does then, VISSL's writer last (vissl/hooks/log_hooks.py:350); after the last step of an epoch it is the epoch's
    (log_hooks.py:364). The run stops before its next step begins.

    Must stand before the hooks that look whether a checkpoint is due, and needs a training step made `skippable`.
    """

    on_start = ClassyHook._noop
    on_forward = ClassyHook._noop
    on_loss_and_meter = ClassyHook._noop
    on_backward = ClassyHook._noop
    on_update = ClassyHook._noop
    on_end = ClassyHook._noop

    def __init__(self) -> None:
        super().__init__()
        self._agreed: bool | None = None  # None: not exchanged in this step
        self._number = 0  # the signal for which the run stops
        self._checkpoint = ""

    def flag(self, device: torch.device) -> Tensor:
        """Whether this rank has been asked, for an exchange with the others: a scalar that needs no wait."""
        return torch.full((), bool(asked_to_stop()), device=device)

    def tell(self, agreed: bool) -> None:
        """What all ranks know in this step, if they have exchanged it already."""
        self._agreed = agreed

    def on_step(self, task: Any) -> None:
        """Have a checkpoint written after this step if a rank has been asked to stop."""
        agreed, self._agreed = self._agreed, None
        if agreed is None:
            agreed = bool(_largest(self.flag(task.device)))
        if not agreed:
            return
        self._number = _largest(torch.tensor(asked_to_stop(), device=task.device))
        if not task.train:
            self._checkpoint = "the last checkpoint"  # VISSL writes none in an evaluation
        elif task.iteration % len(task.dataloaders["train"]):
            task.config["CHECKPOINT"]["CHECKPOINT_ITER_FREQUENCY"] = 1
            self._checkpoint = f"model_iteration{task.iteration}.torch"

    def on_phase_end(self, task: Any) -> None:
        """Have the epoch's checkpoint written if the run stops with the epoch."""
        if self._number and task.train:
            task.config["CHECKPOINT"]["CHECKPOINT_FREQUENCY"] = 1
            last = task.train_phase_idx == task.num_train_phases - 1  # then only an evaluation can be left
            self._checkpoint = "the final checkpoint" if last else f"model_phase{task.train_phase_idx}.torch"

    def before_step(self, task: Any) -> None:
        """Stop within an epoch; see `plugin.skipping`.

        Raises:
            Stopped: On all ranks.
        """
        self._stop(task)

    def on_phase_start(self, task: Any) -> None:
        """Stop between epochs; a run that has taken its last step is left to end.

        Raises:
            Stopped: On all ranks.
        """
        self._stop(task)

    def _stop(self, task: Any) -> None:
        if not self._number or not self._checkpoint:
            return
        # The launcher ends all ranks when the first one fails, and a node that ends may end the job: nobody leaves
        # before the checkpoint is there.
        _largest(torch.zeros((), device=task.device))
        said = (
            f"{name_of(self._number)} has stopped the run after {task.iteration} of {task.max_iteration} steps; the "
            f"same command goes on from {self._checkpoint} in {task.checkpoint_folder}"
        )
        if is_primary():
            logging.warning(said)
        raise Stopped(self._number, said)


def _largest(value: Tensor) -> int:
    return int(over_ranks(value.int(), distributed.ReduceOp.MAX))
