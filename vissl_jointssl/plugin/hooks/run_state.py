"""Every rank's own state: into the checkpoint before VISSL writes it, and back again after a resume."""

from __future__ import annotations

from typing import Any

from classy_vision.generic.distributed_util import is_primary
from classy_vision.hooks import ClassyHook
from classy_vision.hooks.classy_hook import ClassyHookState
from vissl.utils.checkpoint import is_checkpoint_phase

from vissl_jointssl.plugin.random_states import give_back_random_states
from vissl_jointssl.plugin.run_state import Numbers, OwnState, gather_run_state, numbers_of, set_numbers


class RunStateHook(ClassyHook):
    """Makes a resumed run go on bit for bit, at the same number of ranks.

    VISSL writes rank 0's state and loads it on every rank. This hook adds what the other ranks have of their own
    (`plugin.run_state`) to the checkpoints that VISSL's next hook writes, and to no others; `plugin.compat.resume`
    hands each rank its part of the loss when VISSL loads it, and this hook gives back the rest:

    * between epochs at the start, so that the epoch's loader draws its seed as it would have;
    * within an epoch when it begins anew, behind VISSL's hooks, which by then have clustered a memory again
      (vissl/hooks/deepclusterv2_hooks.py:64) and forgotten the losses of the epoch (state_update_hooks.py:96).

    Must stand right before VISSL's `LogLossMetricsCheckpointHook`: what the others draw and change, it has to see.
    """

    on_forward = ClassyHook._noop
    on_loss_and_meter = ClassyHook._noop
    on_backward = ClassyHook._noop
    on_update = ClassyHook._noop
    on_end = ClassyHook._noop

    def __init__(self) -> None:
        super().__init__()
        self._as_made: Numbers = {}
        self._interrupted: OwnState | None = None  # of the epoch that begins next

    def on_start(self, task: Any) -> None:
        """Give back what VISSL's own resume has left out."""
        self._as_made = numbers_of(task.loss)
        own: OwnState | None = getattr(task, "own_state", None)  # of a run that resumes
        if own is None:
            return
        buffers = dict(task.base_model.named_buffers())
        for name, value in own.model.items():
            buffers[name].copy_(value)
        if own.scaler is not None and task.amp_grad_scaler is not None:
            task.amp_grad_scaler.load_state_dict(own.scaler)
        set_numbers(task.loss, own.numbers)
        if own.random is not None:
            give_back_random_states(own.random)
        self._interrupted = own if own.within_epoch else None

    def on_phase_start(self, task: Any) -> None:
        """Go on within an epoch as if it had not begun anew."""
        self.state = ClassyHookState()  # of the last checkpoint; no other may be written with it
        own, self._interrupted = self._interrupted, None
        if own is None:
            return
        task.losses = list(task.checkpoint["classy_state_dict"]["losses"])
        task.loss.load_state_dict(task.checkpoint["loss"])
        set_numbers(task.loss, own.numbers)
        if own.random is not None:
            give_back_random_states(own.random)

    def on_step(self, task: Any) -> None:
        """Gather where VISSL writes a checkpoint within the epoch (vissl/hooks/log_hooks.py:350)."""
        self.state = ClassyHookState()
        frequency = task.config["CHECKPOINT"]["CHECKPOINT_ITER_FREQUENCY"]
        if task.train and frequency > 0 and task.iteration % frequency == 0:
            self.gather(task, within_epoch=True)

    def on_phase_end(self, task: Any) -> None:
        """Gather where VISSL writes an epoch's checkpoint (vissl/hooks/log_hooks.py:364)."""
        epoch, epochs = task.train_phase_idx, task.num_train_phases
        frequency = task.config["CHECKPOINT"]["CHECKPOINT_FREQUENCY"]
        if task.train and is_checkpoint_phase(epoch, frequency, epoch, epochs, "phase"):
            self.gather(task, within_epoch=False)

    def gather(self, task: Any, within_epoch: bool) -> None:
        """Put all ranks' state into the next checkpoint; all ranks must call this, and rank 0 write one at once.

        Args:
            task: VISSL's.
            within_epoch: Whether the epoch goes on, so that a resumed run has the rest of it before it.
        """
        as_made = self._as_made
        moved = {name: value for name, value in numbers_of(task.loss).items() if as_made.get(name) != value}
        steps = task.iteration - task.train_phase_idx * len(task.dataloaders["train"]) if within_epoch else 0
        state = gather_run_state(task, moved, steps)
        self.state = ClassyHookState()
        if is_primary():
            self.state.set_classy_state(state.to_dict())
